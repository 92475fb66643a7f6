// What the page is made of: buttons, pictures, charts, the pad. None of it knows the explorer; explorer.js puts it together.

const bytesOf = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
const encode = (bytes) => btoa(String.fromCharCode(...bytes));
const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// A value as code; pixels compressed, to be short.
async function short(value, words) {
  if (Array.isArray(value)) return `[${(await Promise.all(value.map((one) => short(one, words)))).join(", ")}]`;
  if (typeof value !== "string" || words.includes(value)) return JSON.stringify(value);
  const packed = new Blob([decode(value)]).stream().pipeThrough(new CompressionStream("deflate"));
  return JSON.stringify(encode(new Uint8Array(await new Response(packed).arrayBuffer())));
}

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-")) node.setAttribute(name, value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const button = (label, tip, act, more = {}) => make("button", { type: "button", title: tip, onclick: act, ...more }, label);

// Grey pixels, or those of two images blended, on a canvas of their own size, which the page enlarges.
function paint(canvas, grey, other = grey, mix = 0, tint = []) {
  const side = (canvas.width = canvas.height = Math.sqrt(grey.length));
  const image = new ImageData(side, side), words = new Uint32Array(image.data.buffer), glow = Math.sin(Math.PI * mix); // none at rest
  for (let i = 0; i < grey.length; i++) {
    const v = Math.round(grey[i] + mix * (other[i] - grey[i])), dim = Math.round((1 - 0.4 * glow) * v);
    words[i] = 0xff000000 | (tint[i] ? (dim << 16) | ((dim + glow * 60) << 8) | (dim + glow * 100) : v * 0x10101); // orange
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// One stop of the Tab key for all buttons of a box; arrow keys go from one to the next.
function rove(box, columns, beyond = () => {}) {
  const buttons = () => [...box.querySelectorAll("button")];
  const stop = (one) => buttons().forEach((b, i) => (b.tabIndex = (one ? b === one : !i) ? 0 : -1));
  stop();
  box.addEventListener("focusin", (event) => stop(event.target));
  box.addEventListener("keydown", (event) => {
    const all = buttons(), at = all.indexOf(document.activeElement), wide = columns > 1 ? columns : all.length, row = at - (at % wide);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns, Home: row, End: Math.min(row + wide, all.length) - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    all[to] ? all[to].focus() : beyond(event.key);
  });
  return box;
}

// The place of a name below a scale, in percent: an end's name stays inside.
const within = (at) => `left: ${at}%; transform: translateX(${at < 4 ? 0 : at > 96 ? -100 : -50}%)`;

// Curves on axes of their own, from 0 to 100 both ways; words lie above as text, so that they never stretch.
function chart(panel) {
  const [x0, x1] = panel.x, [y0, y1] = panel.y;
  const across = (v) => (100 * (v - x0)) / (x1 - x0), up = (v) => 100 - (100 * (v - y0)) / (y1 - y0);
  const place = (x, y) => `left: ${across(x)}%; top: ${up(y)}%`;
  const plot = make("div", { class: "plot", role: "img", "aria-label": `${panel.title}, against ${panel.xlabel}` });
  const paths = panel.lines.filter((c) => !c.dots).map((c) => {
    const d = c.x.map((x, i) => `${across(x).toFixed(2)} ${Math.min(140, Math.max(-40, up(c.y[i]))).toFixed(2)}`).join("L");
    const ends = c.fill ? `M${across(c.x[0])} 100L${d}L${across(c.x.at(-1))} 100Z` : `M${d}`;
    return `<path d="${ends}" class="${c.fill ? "area" : "curve"}" style="--colour: ${c.colour}" ${c.dash ? 'stroke-dasharray="5 4"' : ""}/>`;
  });
  plot.innerHTML = `<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">${paths.join("")}</svg>`;
  const dot = (c, x, y) => make("i", { class: "dot", style: `${place(x, y)}; --colour: ${c.colour}` });
  for (const c of panel.lines) if (c.dots) c.x.forEach((x, i) => plot.append(dot(c, x, c.y[i])));
  for (const [at, name] of panel.xticks) plot.append(make("span", { class: "x", style: within(across(at)) }, name));
  for (const [at, name] of panel.yticks) plot.append(make("span", { class: "y", style: `top: ${up(at)}%` }, name));
  const names = panel.lines.filter((c) => c.label).map((c) => make("span", { style: `--colour: ${c.colour}`, class: c.fill ? "filled" : c.dash ? "dashed" : c.dots ? "round" : "" }, c.label));
  const moving = panel.lines.filter((c) => c.follow).map((c) => [c, plot.appendChild(dot(c, c.x[0], c.y[0]))]);
  const node = make("div", { class: panel.yticks.length ? "chart numbered" : "chart" }, make("div", { class: "legend" }, ...names));
  node.append(plot, make("div", { class: "xlabel" }, panel.xlabel));
  node.follow = (t) => moving.map(([c, mark]) => {
    const at = t * (c.x.length - 1), i = Math.min(Math.floor(at), c.x.length - 2), rest = at - i;
    const [x, y] = [c.x, c.y].map((v) => v[i] + rest * (v[i + 1] - v[i]));
    mark.style.cssText = `${place(x, y)}; --colour: ${c.colour}`;
    return y;
  });
  return node;
}

// Of the names at an axis every second, third ... is shown: as many as do not run into each other.
function thin(view) {
  for (const plot of view.querySelectorAll(".plot, .scale")) for (const axis of "xy") {
    const names = [...plot.querySelectorAll(`.${axis}`)], boxes = names.map((name) => name.getBoundingClientRect());
    const apart = (a, b) => (axis === "x" ? b.left - a.right > 3 : a.top - b.bottom > -3);
    const fits = (every) => boxes.filter((_, i) => i % every === 0).every((box, i, all) => !i || apart(all[i - 1], box));
    let every = 1;
    while (!fits(every)) every++;
    names.forEach((name, i) => (name.style.visibility = i % every ? "hidden" : ""));
  }
}

// The picture as large as there is room for: --h, its rows' height together, is found by halving.
function fit(root, right, left) {
  let page = document.scrollingElement, low = right.querySelectorAll("section").length > 1 ? 120 : 260, high = 1600;
  for (let node = root; (node = node.parentElement); ) if (/auto|scroll/.test(getComputedStyle(node).overflowY) && node.clientHeight > 300) page = node;
  const large = document.fullscreenElement === root, zoom = large ? Math.max(1, Math.min(innerWidth / 1000, innerHeight / 596)) : 1;
  root.style.zoom = zoom;
  const bottom = (node) => node.getBoundingClientRect().bottom - root.firstChild.getBoundingClientRect().top;
  const room = Math.max(bottom(left), (large ? innerHeight : Math.min(innerHeight, page.clientHeight, screen.availHeight - 100)) - 24 * zoom, 460);
  const near = [root.high, root.high + 5, root.high - 5]; // mostly as the last time
  while (high - low > 6) {
    const guess = near.shift(), h = guess > low && guess < high ? guess : (low + high) / 2;
    root.style.setProperty("--h", `${h}px`);
    bottom(right) <= room ? (low = h) : (high = h);
  }
  root.style.setProperty("--h", `${(root.high = low)}px`);
}

// A map of numbers: colours, a scale below, and under the pointer the place and its number.
function field(panel) {
  const { side } = panel, values = new Float32Array(bytesOf(panel.values).slice().buffer);
  const canvas = make("canvas", { width: side, height: side, role: "img", "aria-label": panel.title });
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(bytesOf(panel.data)), side), 0, 0);
  const here = make("output", { class: "here" });
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect(), at = (way) => Math.min(side - 1, Math.max(0, Math.floor((side * way) / box.width)));
    const column = at(event.clientX - box.left), row = at(event.clientY - box.top);
    here.textContent = `row ${row}, column ${column}: ${values[row * side + column].toLocaleString("en", { maximumFractionDigits: 2 })} ${panel.unit}`;
  });
  canvas.addEventListener("pointerleave", () => (here.textContent = ""));
  const bar = make("div", { class: "bar", style: `background: linear-gradient(to right, ${panel.scale.map(([r, g, b, a]) => `rgb(${r} ${g} ${b} / ${a / 255})`)})` });
  const scale = make("div", { class: "scale" }, bar, ...panel.marks.map(([at, name]) => make("span", { class: "x", style: within(100 * at) }, name)));
  const inside = (at) => Math.min(93.5, Math.max(6.5, (100 * (at + 0.5)) / side)); // the whole ring is on the map
  const ring = (at) => make("i", { class: "ring", style: `left: ${inside(at % side)}%; top: ${inside(Math.floor(at / side))}%` });
  return make("div", {}, make("div", { class: "map" }, canvas, ...(panel.ring || []).map(ring)), scale, here);
}

// A pad of side x side pixels: a soft pen, an eraser, and a brush that hides; by pointer, or arrow keys and space.
function pad(side, tip, brush, changed, empty, frame) {
  const zoom = Math.floor(280 / side), canvas = make("canvas", { width: side * zoom, height: side * zoom, tabindex: 0, role: "application" });
  canvas.setAttribute("aria-label", `Drawing pad. ${tip}: arrow keys move the pen, space puts it down and lifts it.`);
  canvas.title = tip;
  const context = canvas.getContext("2d");
  let pixels, mask, tool = "Pen", last, down = false, pen = { x: side / 2, y: side / 2 }, outlined = false, gesture = 0, rings = [];
  const reach = () => (tool === "Erase" || tool === "Bold" ? 2.7 : 1.7); // in pixels; soft at the rim, so the eraser is wider than the pen

  function draw() {
    for (let i = 0; i < pixels.length; i++) {
      const v = pixels[i], hidden = mask && mask[i];
      context.fillStyle = hidden ? `rgb(${120 + v * 0.4}, ${80 + v * 0.3}, ${v * 0.2})` : `rgb(${v}, ${v}, ${v})`;
      context.fillRect((i % side) * zoom, Math.floor(i / side) * zoom, zoom, zoom);
    }
    Object.assign(context, { strokeStyle: "rgb(255 255 255 / 0.3)", lineWidth: 1 });
    if (frame) context.strokeRect(...[(side - frame) / 2, (side - frame) / 2, frame, frame].map((v) => v * zoom)); // as large as training digits are
    Object.assign(context, { strokeStyle: "#D55E00", lineWidth: 2 });
    for (const at of rings) {
      context.beginPath();
      context.arc(((at % side) + 0.5) * zoom, (Math.floor(at / side) + 0.5) * zoom, 2 * zoom, 0, 7);
      context.stroke();
    }
    Object.assign(context, { strokeStyle: down || last ? "#E69F00" : "#56B4E9", lineWidth: 2 });
    context.beginPath();
    context.arc(pen.x * zoom, pen.y * zoom, (reach() - 0.3) * zoom, 0, 7);
    if (outlined) context.stroke();
  }
  const outline = (on) => { outlined = on; down &&= on; draw(); };
  const tell = (what) => (draw(), changed(what, what === "mask" ? mask : pixels, gesture));

  // Along the line from one point to the next.
  function stroke(from, to) {
    const dx = to.x - from.x, dy = to.y - from.y, length2 = dx * dx + dy * dy;
    for (let i = 0; i < pixels.length; i++) {
      const px = (i % side) + 0.5 - from.x, py = Math.floor(i / side) + 0.5 - from.y;
      const t = length2 ? Math.min(1, Math.max(0, (px * dx + py * dy) / length2)) : 0;
      const ink = 255 * Math.min(1, Math.max(0, reach() - Math.hypot(px - t * dx, py - t * dy)));
      if (tool === "Pen" || tool === "Bold") pixels[i] = Math.max(pixels[i], ink);
      else if (tool === "Erase") pixels[i] = Math.min(pixels[i], 255 - ink);
      else if (ink > 60) mask[i] = tool === "Hide" ? 1 : 0;
    }
    tell(tool === "Hide" || tool === "Show" ? "mask" : "pixels");
  }
  const place = (event, box = canvas.getBoundingClientRect()) =>
    ({ x: (side * (event.clientX - box.left)) / box.width, y: (side * (event.clientY - box.top)) / box.height });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    gesture++;
    stroke((last = pen = place(event)), last);
  });
  canvas.addEventListener("pointermove", (event) => {
    pen = place(event);
    outline(true);
    if (last) stroke(last, (last = pen));
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (last = undefined));
  canvas.addEventListener("pointerleave", () => outline(false));
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const move = moves[event.key], from = { ...pen };
    if (!move && event.key !== " ") return; // Tab and all others keep their meaning
    event.preventDefault();
    if (move) pen = { x: Math.min(side, Math.max(0, pen.x + move[0])), y: Math.min(side, Math.max(0, pen.y + move[1])) };
    else if ((down = !down)) gesture++;
    outlined = true;
    if (down) stroke(from, pen);
    else draw();
  });
  canvas.addEventListener("focus", () => outline(canvas.matches(":focus-visible")));
  canvas.addEventListener("blur", () => outline(false));

  const tips = { Pen: "Draw", Bold: "Draw with a broad pen", Erase: "Take ink away", Hide: "Mark what the model may not see", Show: "Take such a mark away" };
  const tools = Object.keys(tips).slice(0, brush ? 5 : 3).map((name) =>
    button(name, tips[name], () => { tool = name; press(); }));
  const press = () => tools.forEach((b) => b.setAttribute("aria-pressed", b.textContent === tool));
  const clear = button("Clear the pad", "Start with an empty, black pad, straight and clean, and the pen in its middle", () => {
    [tool, pen] = [tool === "Bold" ? tool : "Pen", { x: side / 2, y: side / 2 }];
    press();
    canvas.focus();
    empty();
  });
  press();
  const node = make("div", { class: "pad" }, canvas, make("div", { class: "buttons" }, ...tools, clear));
  node.mark = (places) => draw((rings = places));
  node.update = (image, hidden) => draw(([pixels, mask] = [image.slice(), hidden && hidden.slice()]));
  return node;
}
