// The explorer's page. Python sends data (controls.py, scene.py); all is drawn here, of the parts in parts.js, which is read before.

function render({ model, el }) {
  const side = model.get("side"), size = side * side, digits = bytesOf(model.get("digits"));
  const tabs = Object.fromEntries(model.get("tabs").map((tab) => [tab.name, tab]));
  const classOf = (number) => (model.get("classes").find(([, numbers]) => numbers.includes(number)) || [""])[0];
  const pixelsOf = (value) => (typeof value === "number" ? digits.slice(value * size, (value + 1) * size) : decode(value));
  const nameOf = (value) => (typeof value === "number" ? `a ${classOf(value) || "digit"}, number ${value}` : "an image of your own");
  const values = (tab = model.get("tab")) => model.get("values")[tab];
  const root = make("div", { class: "nice", "data-lm-suppress-shortcuts": true, onkeydown: keys });
  const tour = model.get("tour");
  let shown = {}, pinned = {}; // the newest picture, and the last that stood for a while; each tab's that is kept to compare with
  let past = {}, ahead = {}, kept = {}, pins = {}, stood = {}; // each tab's values for Undo, and for its undoing; during a tour: past and pinned as they were, and each stop as it was left
  let updates = [], shows = [], playing = false, t = 0, onward = 1, ticked = 0, answered = false, asked, parted, page = 0, aim = "", built, late, gone = "", note = "", kind, fitted, held = false, moved, came;

  function set(change, tab = model.get("tab"), quiet = false) {
    if (note) tell("");
    model.set("values", { ...model.get("values"), [tab]: { ...values(tab), ...change } });
    if (!quiet) model.save_changes(); // while one message is under way, only the newest values wait
  }
  const forget = () => (shown = {}); // what comes is no change of what is there: nothing to compare
  // What a change overwrites, for Undo: nothing if it changes nothing.
  function remember(change, tab = model.get("tab")) {
    const old = Object.fromEntries(Object.keys(change).map((name) => [name, values(tab)[name]]));
    return !same(old, change) && ((ahead[tab] = []), (past[tab] ??= []).push(old));
  }
  const move = (change) => (remember(change), set(change));
  const replace = (change, tab) => (remember(change, tab), forget(), set(change, tab));
  function choose(chosen, tab = model.get("tab")) { // which models stand side by side
    if (same(chosen, model.get("chosen"))) return;
    (ahead[tab] = []), (past[tab] ??= []).push({ chosen: model.get("chosen") });
    model.set({ chosen });
    model.save_changes();
  }
  const undoes = (event) => (event.ctrlKey || event.metaKey) && "zy".includes(event.key.toLowerCase());
  const ours = (event) => undoes(event) || !(event.ctrlKey || event.metaKey); // Ctrl S, say, is the notebook's
  function keys(event) { // no plain key of the notebook's is meant in here
    if (ours(event)) event.stopPropagation();
    if (!undoes(event)) return;
    event.preventDefault();
    const field = event.target.type === "number" && event.target; // which else keeps what is typed
    if (field) field.blur();
    event.key.toLowerCase() === "y" || event.shiftKey ? step(ahead, past) : step(past, ahead);
    if (field) field.focus();
  }
  function shortcuts(event) { // wherever the focus is
    root.toggleAttribute("data-lm-suppress-shortcuts", ours(event));
    const clicker = document.fullscreenElement === root && { PageDown: 1, PageUp: -1 }[event.key], stop = model.get("stop");
    if (!clicker) return;
    event.preventDefault();
    event.stopPropagation();
    const play = !answered && t === 0 && !playing && view.querySelector(".time button"); // what moves is seen to move
    if (clicker > 0 && stop >= 0) (answered && view.dataset.runs === "true") || (play || say.querySelector(".on:not(.given)"))?.click();
    else if (answered && stop >= 0) visit(stop); // its question
    else visit(Math.max(0, stop + clicker), clicker < 0 ? stood[stop - 1] : undefined); // what was told there
  }
  function step(from, to, tab = model.get("tab")) {
    const entry = from[tab]?.pop();
    if (!entry) return;
    const { chosen, answers, ...change } = entry, now = Object.fromEntries(Object.keys(change).map((name) => [name, values()[name]]));
    (to[tab] ??= []).push({ ...now, ...(chosen && { chosen: model.get("chosen") }), ...(answers && { answers }) });
    shown = { back: true }; // it has stood before
    if (chosen) model.set({ chosen });
    set(change);
    if (answers) (answered = from === ahead), heads();
  }
  function open(tab) { // which ends a tour, and brings back what was there before it
    rest();
    const stop = model.get("stop");
    parted = stop < 0 ? (parted?.left ? undefined : parted) : { stop, answered, asked, past, stood: here(), left: !tab };
    if (stop >= 0) forget(), ([past, ahead, pinned] = [kept, {}, pins]); // where it can be taken up again
    model.set({ ...(stop < 0 ? {} : model.get("before")), ...(tab ? { tab } : {}), stop: -1 });
    model.save_changes();
  }
  const here = () => ({ values: model.get("values"), chosen: model.get("chosen"), tab: model.get("tab") });
  function visit(stop, as = { answered: false, past: {} }) { // afresh, or as it was left
    const { tab, values: moved } = tour[stop], stays = tab === model.get("tab"), place = root.getBoundingClientRect();
    if (model.get("stop") < 0) [kept, pins, stood] = [past, pinned, {}], model.set("before", here());
    else stood[model.get("stop")] = { answered, asked, past, stood: here() };
    pinned = {}; // a stop is compared with its own question
    ({ answered, asked, past, ahead = {} } = as);
    [parted, aim, note] = [undefined, answered ? "Next" : "Show answer", ""];
    if (tour[stop].press) answered = false; // its run is over
    forget();
    set({ ...defaults(tabs[tab]), ...moved }, tab, true);
    model.set({ tab, stop, chosen: model.get("models").slice(0, 1), ...as.stood });
    model.save_changes();
    if (stays) build();
    if (place.top < 0 || place.bottom > innerHeight) root.scrollIntoView(); // a question and its picture are seen together
  }
  function anew() {
    const tab = model.get("tab");
    [playing, answered] = [false, false];
    if (model.get("stop") >= 0) choose(model.get("models").slice(0, 1));
    replace({ ...defaults(tabs[tab]), ...(tour[model.get("stop")] || {}).values });
    heads();
  }
  function answer({ tab, values: moved, then, press, models = 1 }) { // of the stop's own picture, whatever was played with meanwhile
    const { t: _, ...own } = { ...defaults(tabs[tab]), ...moved }, change = { ...own, ...then };
    [answered, aim, playing, shown.since] = [true, "Next", false, 0]; // what stands there is what the answer is compared with
    if (models > 1) choose(model.get("models").slice(0, models)); // else those that were switched on stay
    const played = remember(change);
    if (played) past[tab].at(-1).answers = true; // it is taken back with them
    set(change);
    if (press && (played || /press Start/.test(view.textContent))) act(press), (view.dataset.runs = true);
    heads();
    shows.forEach((show) => show());
  }

  // What stood here when the cell was last run, the page loaded or the kernel lost.
  const shelf = `nice: ${model.get("models")}, ${digits.length}`, names = ({ values }) => Object.values(values).map(Object.keys);
  const state = () => (model.get("stop") < 0 ? here() : model.get("before"));
  let old = null;
  try { old = JSON.parse(sessionStorage.getItem(shelf)); } catch { /* this page may keep nothing */ }
  if (old && (same(old, state()) || !same(names(old), names(state())))) old = null;
  const store = () => { try { sessionStorage.setItem(shelf, JSON.stringify(state())); } catch { /* as above */ } };
  function restore() { // what was made since then is there to come back in its turn
    const then = old, made = [past, kept].some((each) => Object.values(each).some((steps) => steps.length));
    old = made ? structuredClone(state()) : null;
    model.set(then);
    model.save_changes();
    heads();
  }

  // An image that was clicked: the tab takes it, or it is handed to another.
  function take(value, tab, slot) {
    const name = tabs[tab].takes, old = values(tab)[name];
    const straight = Object.fromEntries((tabs[tab].afresh || []).map((one) => [one, tabs[tab].controls[one].value])); // not the last one's turn
    if (name !== "chain") return name && (slot === "same" ? move : replace)({ ...straight, [name]: value }, tab); // a cleared pad is compared
    const chain = slot === "start" ? [value, ...old.slice(1)] : slot === "end" ? [...old.slice(0, -1), value] : [...old, value];
    const walk = chain.slice(-8), longer = slot !== "start" && slot !== "end"; // then t goes to the new leg's middle
    replace({ chain: walk, ...(longer && { t: Number((1 - 0.5 / (walk.length - 1)).toFixed(3)) }) }, tab);
    if (chain.length > 8) tell("at most 8 images: the oldest went");
  }
  // Beside the clicked tile: where should its image go?
  function offer(value, from, made = false) {
    const to = (label, tip, tab, slot) => button(label, tip, () => {
      handed.hidePopover();
      if (tab !== model.get("tab")) open(tab);
      take(value, tab, slot);
      if (made && tab === "likelihood") tell("what the model made becomes an image here: 256 greys, with noise; so its nats are others than there");
      top.querySelector("[aria-selected=true]").focus({ preventScroll: true });
    });
    const image = make("span", { class: "thumb", title: nameOf(value) }, paint(make("canvas"), pixelsOf(value)));
    const others = Object.values(tabs).filter((tab) => tab.takes && tab.takes !== "chain" && tab.name !== model.get("tab"));
    const walk = [["start", "Where the walk begins"], ["end", "Where the walk ends"], ["add a stop", "One more stop of the walk"]];
    handed.replaceChildren(image, make("span", {}, "use it in ", ...others.map((tab) => to(tab.title, `Use it in ${tab.title}`, tab.name))),
      make("span", {}, "or in Code space: ", ...walk.map(([slot, tip]) => to(slot, tip, "code_space", slot))));
    const box = from.getBoundingClientRect(), group = from.parentNode.getBoundingClientRect(), zoom = root.style.zoom || 1;
    handed.showPopover(); // no neighbour of the image lies under it: one more click takes another
    const { width, height } = handed.getBoundingClientRect(), aside = view.contains(from) && group.right + width + 8 < innerWidth;
    const below = group.bottom + height + 8 < innerHeight ? group.bottom + 4 : group.top - height - 4;
    const [x, y] = aside ? [group.right + 4, Math.min(box.top, innerHeight - height - 8)] : [Math.min(box.left, innerWidth - width - 8), below];
    handed.style.cssText = `left: ${Math.max(0, x) / zoom}px; top: ${Math.max(0, y) / zoom}px`;
    handed.querySelector("button").focus({ preventScroll: true });
    moved = () => Math.abs(from.getBoundingClientRect().top - box.top) > 8; // a scroll of less leaves it
  }

  function tile(value, label, act, caption = "") {
    const bytes = value instanceof Uint8Array ? value : pixelsOf(value);
    return make("button", { type: "button", class: "tile", title: label, "aria-label": label, onclick: (event) => act(event.currentTarget, event.detail > 1) }, paint(make("canvas"), bytes), caption);
  }
  function gallery() {
    const classes = model.get("classes"), longest = Math.max(...classes.map(([, numbers]) => numbers.length)), rows = 3;
    const box = make("div", { class: "tiles", style: `--columns: ${classes.length}`, role: "group", "aria-label": "Gallery of real digits" });
    function fill() {
      const shown = [...Array(rows).keys()].flatMap((row) => classes.map(([, numbers]) => numbers[(page + row) % numbers.length]));
      const pick = (number) => (from, again) => tabs[model.get("tab")].takes ? again || take(number, model.get("tab")) : offer(number, from); // a double click takes it once
      box.replaceChildren(...classes.map(([name]) => make("b", {}, name)), ...shown.map((number) => tile(number, nameOf(number), pick(number))));
      box.querySelectorAll("button").forEach((b, i) => { b.tabIndex = i ? -1 : 0; b.number = shown[i]; });
      at.textContent = longest <= rows ? "" : `${page + 1} to ${page + rows} of ${longest}`;
      mark();
    }
    const mark = (used = [values()[tabs[model.get("tab")].takes]].flat()) =>
      box.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", used.includes(b.number)));
    const at = make("span");
    const pages = Math.ceil(longest / rows), turn = (by) => () => { // the last page is a full one, however few there are
      page = Math.max(0, Math.min(longest - rows, ((Math.ceil(page / rows) + by + pages) % pages) * rows));
      fill();
    };
    const more = button("More digits", "The next three of each class", turn(1)), less = button("Back", "The three before", turn(-1));
    fill();
    rove(box, classes.length, (key) => key === "ArrowDown" && more.focus());
    more.addEventListener("keydown", (event) => event.key === "ArrowUp" && (event.preventDefault(), box.querySelector(`button:nth-last-child(${classes.length})`).focus()));
    updates.push(mark);
    return make("div", { class: "gallery" }, box, more, less, at);
  }

  function control(name, spec) {
    const tip = { title: spec.tip, "aria-label": spec.label };
    const row = (...nodes) => make("label", { class: "control", "data-key": name, title: spec.tip }, make("span", {}, spec.label), ...nodes);
    const update = (act) => (updates.push(() => act(values()[name])), act(values()[name]));
    if (spec.hidden || spec.kind === "pad") return "";
    if (spec.kind === "chain" || spec.kind === "image") {
      const box = make("div", { class: spec.kind === "chain" ? "chain walk" : "chain" });
      update((value) => {
        const few = spec.kind !== "chain" ? "" : value.length < 3 && "a walk needs two images: add one before you take this one out";
        const out = (i, from) => few === false ? replace({ [name]: value.filter((_, j) => j !== i) }) : few ? tell(few) : offer(value, from);
        const at = [...box.children].indexOf(document.activeElement);
        box.replaceChildren(...[value].flat().map((v, i) => tile(v, `${nameOf(v)}. ${spec.tip}`, (from) => out(i, from))));
        box.children[Math.min(at, box.children.length - 1)]?.focus();
      });
      return make("div", { class: "control", title: spec.tip }, make("span", {}, spec.label), box);
    }
    if (spec.kind === "choice") {
      const select = make("select", { ...tip, onchange: () => move({ [name]: select.value }) });
      const choices = new Map(spec.options.map((option) => [option, option]));
      if (spec.brush) choices.set(encode(new Uint8Array(size)), "nothing: use the brush");
      update((value) => {
        const all = new Map([...choices, ...(choices.has(value) ? [] : [[value, "your brush"]])]);
        select.replaceChildren(...[...all].map(([option, words]) => make("option", { value: option }, words)));
        select.value = value;
      });
      return row(select);
    }
    const { options: stops, low, high, step } = spec, whole = Number.isInteger(step), number = spec.kind === "number";
    const [min, max, by] = stops ? [0, stops.length - 1, 1] : [low, high, step];
    const slide = make("input", { type: "range", min, max, step: by, ...tip }); // and beside it the number, to be typed
    const typed = make("input", { type: "number", min: low, max: high, step, ...tip, ...(number ? {} : { class: "typed", tabindex: -1, "aria-label": `${spec.label}, typed` }) });
    slide.addEventListener("keydown", (event) => /^[-.0-9]$/.test(event.key) && ours(event) && (typed.focus(), typed.select())); // and the key goes there
    let entry, last = 0; // a pull, or presses one after the other, are one step of Undo
    function put(value) {
      const change = { [name]: value };
      if (spec.anew) forget();
      const goesOn = entry && past[model.get("tab")]?.at(-1) === entry && (held || performance.now() - last < 1000);
      if (!goesOn) entry = remember(change) && past[model.get("tab")].at(-1);
      last = performance.now();
      set(change);
    }
    slide.addEventListener("input", () => put(stops ? stops[slide.value] : Number(slide.value)));
    let entered = "";
    typed.addEventListener("input", () => {
      const value = Math.min(high, Math.max(low, Number((entered = typed.value))));
      if (entered) put(whole ? Math.round(value) : value);
    });
    typed.addEventListener("change", () => {
      if (Number(entered || NaN) !== values()[name]) tell(`${spec.label} = ${entered || "nothing"}? It takes ${whole ? "whole " : ""}numbers from ${low} to ${high.toLocaleString("en")}; taken: ${values()[name]}`);
      typed.value = values()[name]; // what is drawn
    });
    update((value) => {
      const at = stops ? stops.findLastIndex((stop) => stop <= value) : value;
      if (document.activeElement !== slide || Number(slide.value) !== at) slide.value = at;
      if (document.activeElement !== typed) typed.value = value; // a number is typed to its end
      slide.setAttribute("aria-valuetext", value);
    });
    return number ? row(typed) : row(slide, typed);
  }
  function drawingPad(tab) {
    const [name, spec] = Object.entries(tab.controls).find(([, c]) => c.kind === "pad") || [];
    if (!name) return "";
    const masks = tab.controls.part && tab.controls.part.brush;
    const hidden = () => masks && decode(masks[values().part] || values().part);
    let last;
    const node = pad(side, spec.tip, masks, (what, bytes, gesture) => {
      const change = { [what === "mask" ? "part" : name]: encode(bytes) };
      if (gesture !== last && remember(change)) last = gesture;
      set(change);
    }, () => take(encode(new Uint8Array(size)), tab.name, "same"), tour.length && 20);
    const update = () => node.update(pixelsOf(values()[name]), hidden());
    updates.push(update);
    update();
    return node;
  }

  const largeName = () => (document.fullscreenElement === root ? "Leave large" : "Large");
  const large = () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen()).catch(() => tell("this page may not fill the screen"));
  function send(content) {
    try { model.send(content); } catch { lost(noKernel); }
  }
  const pin = (name = model.get("tab")) => { pinned[name] = pinned[name] ? undefined : model.get(name); updates.forEach((update) => update()); draw(); };
  const act = (action) => action === "keep" ? pin() : typeof action === "string" ? (rest(), tell(""), send({ do: action }), /start|go_on/.test(action) && stops(true))
    : move(Object.fromEntries(Object.entries(action).map(([name, by]) => [name, (values()[name] + by) % (tabs[model.get("tab")].controls[name].high + 1)])));
  const stops = (runs) => left.querySelectorAll("[data-do=stop], [data-do=go_on]").forEach((b) => (b.disabled = b.dataset.do === "stop" ? !runs : runs || !/or Go on/.test(view.textContent)));
  const defaults = (tab) => Object.fromEntries(Object.entries(tab.controls).map(([name, c]) => [name, c.value]));
  async function copy() {
    rest();
    const tab = tabs[model.get("tab")], start = defaults(tab), chosen = model.get("chosen");
    const changed = Object.entries(values()).filter(([name, value]) => !same(value, start[name]));
    if (!same(chosen, model.get("models").slice(0, 1))) changed.push(["models", chosen]);
    const words = await Promise.all(changed.map(async ([name, value]) => `${name}=${await short(value, (tab.controls[name] || { options: chosen }).options || [])}`));
    const [, step, last] = /step (\d+) of (\d+)/.exec(model.get(tab.name).scenes?.[0].text) || [];
    const comment = step === last ? "" : `  # to step ${last}; the page stands at step ${step}`, line = `${model.get("called") || "explorer"}.${tab.name}.show(${words.join(", ")})${comment}`;
    const done = await navigator.clipboard?.writeText(line).then(() => true, () => false);
    tell(done && line.length > 200 ? `copied: ${line.slice(0, 60)}… (${line.length} characters)${comment}` : `${done ? "copied" : "to be copied"}: ${line}`);
  }

  // Pictures
  const captions = (panel) => (panel.count > 49 ? [] : panel.captions); // of more, tooltips alone tell
  function panelOf(panel) {
    const node = { chart, field, play: player, images: imagesOf }[panel.kind](panel);
    const words = panel.captions?.length && !captions(panel).length ? `${panel.title}: point at one for its nats` : panel.title;
    const title = words ? [make("figcaption", {}, words)] : [];
    const style = `--width: ${panel.width}; --ratio: ${panel.kind === "images" ? panel.width * (captions(panel).length ? 0.8 : 1) : 1}; --columns: ${panel.columns || 1}`;
    return make("figure", { class: panel.kind, style }, ...title, node);
  }
  function imagesOf(panel) {
    const bytes = bytesOf(panel.data), each = [...Array(panel.count).keys()].map((i) => bytes.slice(i * size, (i + 1) * size));
    const label = (i) => `${panel.title}, image ${i + 1}${panel.captions[i] ? `: ${panel.captions[i]}` : ""}. Click to ${panel.states && panel.captions[i] !== "x" ? "go there" : "hand it to another tab"}`;
    const goTo = (i) => { const from = t; [t, playing] = [i / (panel.count - 1), false]; went(from); }; // a state is no image: its greys stand for other numbers
    const image = (i) => (i ? encode(each[i].map((v) => Math.max(0, 2 * (v - 128)))) : values().image); // of a state the middle grey is 0
    const give = (i, from) => panel.states && panel.captions[i] !== "x" ? goTo(i) : offer(panel.states ? image(i) : encode(each[i]), from, panel.states ? i > 0 : !panel.given && !/real/.test(panel.title));
    const tiles = each.map((image, i) => tile(image, label(i), (from) => give(i, from), captions(panel)[i]));
    return rove(make("div", { class: "tiles", style: `--columns: ${panel.columns}`, role: "group", "aria-label": panel.title }, ...tiles), panel.columns);
  }
  function player(panel) {
    const moved = panel.moved ? bytesOf(panel.moved) : new Uint8Array(); // what the layer on the way shifts
    const bytes = bytesOf(panel.data), frame = (track, i) => bytes.subarray((track * panel.frames + i) * size, (track * panel.frames + i + 1) * size);
    const screens = panel.tracks.map((title) => make("canvas", { role: "img", "aria-label": title }));
    const curve = panelOf(panel.chart);
    let seen = 0; // a tour's question may show no more of the curves than was played
    shows.push(() => {
      node.style.setProperty("--seen", (seen = Math.max(seen, t)));
      const at = t * (panel.frames - 1), i = Math.min(Math.floor(at), panel.frames - 2);
      const shifted = (track) => moved.subarray((track * panel.frames + i + 1) * size, (track * panel.frames + i + 2) * size);
      screens.forEach((screen, track) => paint(screen, frame(track, i), frame(track, i + 1), at - i, shifted(track)));
      const now = [t.toFixed(2), ...curve.lastChild.follow(t).map((nats) => Math.round(nats).toLocaleString("en"))];
      node.closest("section").querySelectorAll(".now").forEach((place, which) => (place.textContent = now[which]));
    });
    const tracks = panel.tracks.map((title, i) => make("figure", { style: "--width: 1; --ratio: 0.8" }, make("figcaption", {}, title), screens[i]));
    const node = make("div", { class: "row" }, ...tracks, curve);
    return node;
  }
  // One slider moves the players of all models.
  function timeBar({ frames, names }) {
    const title = "t, from the first image (0) to the last (1)", out = make("output");
    const slide = make("input", { type: "range", min: 0, max: 1, step: 0.001, title, "aria-label": "t" });
    const toggle = button("Play", "Play or pause", (event) => { if (event.detail > 1) return; playing = !playing; ticked = performance.now(); keep(); if (playing) requestAnimationFrame(tick); });
    let from;
    for (const name of ["pointerdown", "keydown"]) slide.addEventListener(name, () => { [playing, from] = [false, t]; keep(); }); // the hand has it
    slide.addEventListener("change", () => { went(from ?? t); from = t; });
    slide.addEventListener("input", () => { [t, playing] = [Number(slide.value), false]; keep(); });
    const show = () => {
      if (document.activeElement !== slide || Number(slide.value) !== t) slide.value = t;
      const near = [Math.floor, Math.ceil].map((way) => way(Number((t * (frames - 1)).toFixed(2)))); // on the way from one to the next
      out.textContent = names.length ? `image: ${[...new Set(near)].map((i) => names[i]).join(" to ")}` : `t = ${t.toFixed(2)}`;
      toggle.textContent = playing ? "Pause" : "Play";
    };
    show.seconds = (names.length ? 1.2 : 0.2) * frames;
    shows.unshift(show);
    return make("div", { class: "time" }, toggle, slide, out);
  }
  const went = (from) => { if (from !== t) (ahead[model.get("tab")] = []), (past[model.get("tab")] ??= []).push({ t: Number(from.toFixed(3)) }); keep(); };
  // The kernel hears of it with the next change of something else.
  const keep = () => { set({ t: Number(t.toFixed(3)) }, model.get("tab"), true); shows.forEach((show) => show()); };
  const rest = () => "t" in values() && (keep(), model.save_changes()); // the time at which a walk stands, for the kernel
  function tick(now) {
    if (!playing || !root.isConnected || !shows.length) return (playing = false);
    t += (onward * (now - ticked)) / 1000 / shows[0].seconds;
    ticked = now;
    if (t < 0 || t > 1) [t, onward] = [Math.min(1, Math.max(0, t)), -onward];
    shows.forEach((show) => show());
    requestAnimationFrame(tick);
  }

  const top = make("div", { class: "top" }), say = make("p", { class: "say" }), left = make("div", { class: "left" });
  const beside = make("div", { class: "beside" }), once = make("div", { class: "row once" }), view = make("div", { class: "view", role: "group" }), handed = make("div", { class: "hand", popover: "auto", role: "dialog", "aria-label": "Hand it to another tab" });
  const said = make("p", { class: "said", role: "status" }), right = make("div", { class: "right" }, view);
  root.append(top, say, make("div", { class: "body" }, beside, left, right), handed);
  el.append(root);

  // Is the picture older than the controls? Python says with each which values it is of.
  function wait() {
    const { name, controls } = tabs[model.get("tab")], loud = Object.entries(values()).filter(([key]) => !controls[key].quiet);
    const busy = !same(model.get(name).of, [Object.fromEntries(loud), model.get("chosen")]);
    view.setAttribute("aria-busy", busy);
    if (!busy) late = clearTimeout(late), dead() || ((gone = ""), report());
    else late ??= setTimeout(() => lost("The picture waits for the kernel, which runs another cell: it follows by itself, and what you do meanwhile is kept. (If the kernel was restarted, run this explorer's cell again.)"), 2000);
  }
  const noKernel = "No kernel. Was it restarted? Then run this explorer's cell again.", dead = () => gone === noKernel; // the surer of the two
  const lost = (why) => ((gone = dead() ? gone : why), report());
  const tell = (words) => ((note = words), report());
  function report() {
    const was = said.textContent, words = (said.textContent = [gone, note || model.get(model.get("tab")).said].filter(Boolean).join(" "));
    if (gone) right.prepend(said);
    else if (said.parentNode !== left) left.append(said); // beside what was pressed
    said.classList.toggle("missed", Boolean(gone));
    said.classList.toggle("warning", dead());
    if (words && words !== was && !gone && root.contains(document.activeElement)) said.scrollIntoView({ block: "nearest" }); // below the edge of a small screen
  }
  function hold(on) { // what a stroke or a pull makes is compared with what stood there before it, however long it takes
    if (on && performance.now() - shown.since > 800) shown.was = shown.picture;
    if (held && !on) shown.since = performance.now();
    held = on;
  }
  // The marks of the last picture that stood for a while stay beside the newest, dashed: what did the change bring?
  function before(picture) {
    const now = performance.now(), rests = view.getAttribute("aria-busy") === "false";
    if (rests && shown.picture !== picture) shown = { ...shown, was: !held && now - shown.since > 800 ? shown.picture : shown.was, picture, since: shown.back ? 0 : now, back: false };
    const touring = model.get("stop") >= 0; // its answers are compared with the question
    if (rests && touring && (!asked || same(asked.of[0], picture.of[0]))) asked = picture;
    return Object.fromEntries(((pinned[model.get("tab")] || (touring && asked) || shown.was || {}).scenes || []).map((scene) => [scene.name, scene]));
  }
  const nats = (text) => Number((/-?[0-9,.]+(?= nats)/.exec(text) || ["NaN"])[0].replaceAll(",", ""));
  function more(before, now) {
    const by = nats(now) - nats(before);
    return by ? `; ${Math.abs(by).toLocaleString("en", { maximumFractionDigits: 0 })} ${by < 0 ? "fewer" : "more"}` : "";
  }
  const word = () => (pinned[model.get("tab")] ? "kept" : "before");
  function withGhosts(panel, old) {
    const panels = old ? old.rows.flatMap(([, row]) => row) : [], twin = panels.find((one) => one.title === panel.title && one.lines);
    const ghosts = twin ? twin.lines.filter((c) => c.ghost && !panel.lines.some((now) => same(now.x, c.x))) : [];
    return { ...panel, lines: (panel.lines || []).concat(ghosts.map((c) => ({ ...c, dash: true, colour: "#888888", label: word() }))) };
  }
  // Shift and Enter has gone on to the next cell, whose place JupyterLab sought before there was an explorer: back to it, once.
  const come = () => root.closest(".jp-Cell")?.nextElementSibling?.matches(".jp-mod-active") && root.scrollIntoView({ block: "start" });
  function draw() {
    const name = model.get("tab"), picture = model.get(name), scenes = picture.scenes || [];
    if (scenes.length && !came) came = requestAnimationFrame(come);
    const player = scenes.flatMap((scene) => scene.rows[0][1]).find((panel) => panel.kind === "play");
    wait();
    const was = before(picture), here = view.contains(document.activeElement);
    shows = [];
    const shared = (panel) => panel.given && scenes.length > 1; // the same for all models: stands there once
    const sections = scenes.map((scene) => {
      const rows = scene.rows.map(([share, panels]) => [share, panels.filter((panel) => !shared(panel)).map((panel) => withGhosts(panel, was[scene.name]))]).filter(([, panels]) => panels.length);
      const marked = rows.some(([, panels]) => panels.some((panel) => panel.lines.some((c) => c.ghost)));
      const last = marked && was[scene.name] && was[scene.name].text !== scene.text && /<b>(.*?)<\/b>/.exec(was[scene.name].text)[1];
      const nodes = rows.map(([share, panels]) => make("div", { class: "row", style: `--share: ${share}` }, ...panels.map(panelOf)));
      const text = make("p", { class: "line", "aria-live": "polite" });
      text.innerHTML = last ? scene.text.replace("</b>", `</b> (${word()}: ${last}${more(last, scene.text)})`) : scene.text;
      const section = make("section", {}, ...(scenes.length > 1 ? [make("h4", {}, scene.name)] : []), text, ...nodes), told = new Set();
      if (scenes.length > 1) for (const name of section.querySelectorAll(".legend span")) told.size === told.add(name.outerHTML).size && !/^(this|kept|before)/.test(name.textContent) && name.remove(); // little room: once a picture
      return section;
    });
    rings();
    once.replaceChildren(...(scenes[0] ? scenes[0].rows : []).flatMap(([, row]) => row.filter(shared).map(panelOf)));
    view.replaceChildren(...(player ? [timeBar(player)] : []), ...sections);
    view.setAttribute("aria-label", `${tabs[name].title}: the picture`);
    view.dataset.drawn = picture.drawn;
    report();
    view.dataset.runs = Boolean(picture.running || /press Start/.test(scenes[0]?.text)); // the answer waits for a run's end
    stops(picture.running);
    shows.forEach((show) => show());
    if (here && !view.contains(document.activeElement)) (view.querySelector(".time input") || top.querySelector("[aria-selected=true]")).focus({ preventScroll: true });
    kind = JSON.stringify([name, scenes.map((scene) => scene.rows.map(([, row]) => row.map((p) => [p.kind, p.columns, p.count])))]);
    sized();
  }
  function rings() { // on the pad too, where it shows what the model sees
    const rows = (model.get(model.get("tab")).scenes || [{ rows: [] }])[0].rows, { right: aside, down, turn, noise } = values();
    const field = rows.flatMap(([, row]) => row).find((panel) => panel.ring), straight = !aside && !down && !turn && !noise;
    if (beside.pad) beside.pad.mark(field && straight && !/map/.test(root.dataset.hides) ? field.ring : []);
  }
  // Anew where the picture's kind, or the room for it, is another.
  function sized() {
    const now = `${root.clientWidth} ${view.offsetTop} ${kind} ${root.dataset.hides}`;
    const lines = [...view.querySelectorAll(".line")], level = (high) => lines.forEach((one) => (one.style.minHeight = high));
    if (now !== fitted) level(""), level(`${Math.max(0, ...lines.map((one) => one.clientHeight))}px`), fit(root, right, left), (fitted = now); // of two models, pictures at one height
    thin(view);
  }
  // The words and buttons on top, made anew; whoever had the focus finds it where they go on, or where they were.
  function heads() {
    const was = [top, say].some((box) => box.contains(document.activeElement)), words = aim || document.activeElement.textContent;
    const name = model.get("tab"), stop = model.get("stop"), chosen = model.get("chosen");
    const stops = tour.map((one, i) => button(`${i + 1} ${one.label}`, one.ask, () => visit(i), { "aria-pressed": i === stop }));
    const resume = stop < 0 && parted ? [button(`Back to stop ${parted.stop + 1}`, "Go on with the tour, where you left it", () => visit(parted.stop, parted), { class: "again" })] : [];
    if (stop < 0 && old) resume.push(button("Bring back what was here", "Your settings, drawings and tab from before this cell was run again", restore, { class: "again" }));
    const bar = Object.values(tabs).map((tab) => button(tab.title, `Open ${tab.title}`, () => open(tab.name), { role: "tab", "aria-selected": tab.name === name }));
    const models = model.get("models").map((one) => button(one, "Show it, beside the others that are on", () => {
      const now = model.get("models").filter((m) => (m === one) !== chosen.includes(m));
      tell(now.length ? "" : "one model stays on: switch on another first");
      if (!now.length) return;
      choose(now);
    }, { "aria-pressed": chosen.includes(one) }));
    top.replaceChildren(
      rove(make("div", { class: "buttons tour", role: "group", "aria-label": "A tour" }, ...(stops.length ? [make("span", {}, "Tour")] : []), ...stops), 1),
      rove(make("div", { class: "tabs", role: "tablist" }, ...bar), 1),
      make("div", { class: "buttons models", role: "group", "aria-label": "Models" }, ...(models.length > 1 ? [make("span", {}, "Models"), ...models] : [])),
    );
    root.dataset.hides = stop < 0 ? "" : `${(!answered && tour[stop].hides) || ""} ${tour[stop].spares || ""}`; // until the answer; in all
    const told = make("span", {}), go = make("span", { class: "go" }, ...resume);
    told.innerHTML = stop < 0 ? tabs[name].look_for : `${stop + 1} of ${tour.length}. ${tour[stop].ask}`;
    say.replaceChildren(told, go);
    if (stop >= 0) {
      say.append(make(answered ? "b" : "i", {}, tour[stop].say)); // its place is kept
      go.append(button("Show answer", "What is to be seen, and why", () => answer(tour[stop]), { class: answered ? "on given" : "on" })); // as is its button's
      if (stop + 1 < tour.length) go.append(button("Next", "The next stop of the tour", (event) => event.detail < 2 && visit(stop + 1) /* a double click goes one stop on */, { class: "on" }));
      go.append(button("Leave the tour", "Everything as it was before the tour", () => open()));
    }
    const all = [say, top].flatMap((box) => [...box.querySelectorAll("button")]), here = all.find((b) => b.matches(".say button:not(.given, .again), [aria-selected=true]"));
    if (was) (all.find((b) => b.textContent === words) || here).focus({ preventScroll: true });
    aim = "";
    rings();
    sized();
  }
  function build() {
    const name = (built = model.get("tab")), tab = tabs[name], was = root.contains(document.activeElement);
    if (handed.matches(":popover-open")) handed.hidePopover();
    updates = [];
    forget();
    [playing, t, note] = [false, values().t || 0, ""];
    const spare = [["Undo", "Take back the last change in this tab: Ctrl Z; Ctrl Shift Z brings it back", () => step(past, ahead), { class: "undo" }], ["Reset", "All controls of this tab as they were, or as this stop of the tour has them", anew], ["Copy as code", "The line of Python that makes this picture", copy, { class: "file" }], ["Save as PNG", "Write the picture beside the notebook", () => act("save"), { class: "file" }], [largeName(), "Fill the screen, for a classroom: PageDown and PageUp, a clicker's keys, then lead through the tour; Escape comes back", large, { class: "large" }]];
    const buttons = tab.actions.map(([label, tip, action]) => button(label, tip, () => act(action), typeof action === "string" ? { "data-do": action } : {}));
    const controls = Object.entries(tab.controls).map(([key, spec]) => control(key, spec));
    left.replaceChildren(gallery(), ...controls, make("div", { class: "buttons" }, ...buttons, ...spare.map((s) => button(...s))), said);
    const undo = left.querySelector(".undo"), kept = left.querySelector("[data-do=keep]");
    updates.push(() => {
      if (kept) kept.setAttribute("aria-pressed", Boolean(pinned[name]));
      undo.setAttribute("aria-disabled", !past[name]?.length); // it keeps the focus, for Ctrl Shift Z
    });
    updates.at(-1)();
    beside.replaceChildren((beside.pad = drawingPad(tab)));
    if (beside.firstElementChild) beside.append(once);
    heads();
    draw();
    if (was && !root.contains(document.activeElement)) top.querySelector("[aria-selected=true]").focus({ preventScroll: true });
  }
  function sync() {
    if (built !== model.get("tab")) return; // its controls come with build()
    updates.forEach((update) => update());
    wait();
    if ("t" in values() && values().t !== t && !playing) t = values().t;
    shows.forEach((show) => show());
  }
  const events = [["change:tab", build], ["change:values", sync], ["change:chosen change:stop", heads], ["change:chosen", sync], ["change:values change:tab change:chosen", store], ["comm_live_update", () => lost(noKernel)]];
  for (const name of Object.keys(tabs)) events.push([`change:${name}`, () => ((gone = ""), name === model.get("tab") && draw())]);
  for (const [name, react] of events) model.on(name, react);
  const sizes = new ResizeObserver(() => sized());
  sizes.observe(view);
  const full = () => { // or no longer
    left.querySelector(".large").textContent = largeName();
    sized((fitted = ""));
    if (document.fullscreenElement !== root) return root.removeAttribute("tabindex");
    root.tabIndex = -1; // a click beside all buttons leaves the keys here
    (say.querySelector(".on:not(.given)") || top.querySelector("[aria-selected=true]")).focus();
  };
  for (const where of [window, root]) where.addEventListener(where === root ? "fullscreenchange" : "resize", full);
  // Jupyter runs a cell by keys only if the focus is not held in here.
  const release = () => hold(false), scrolled = () => handed.matches(":popover-open") && moved() && handed.hidePopover(); // its image went
  const leave = (event) => root.contains(event.target) || (root.contains(document.activeElement) && document.activeElement.blur());
  root.addEventListener("pointerdown", () => hold(true), true);
  window.addEventListener("keydown", shortcuts, true);
  const heard = [["pointerup", release], ["pointercancel", release], ["pointerdown", leave], ["scroll", scrolled]];
  for (const [name, react] of heard) document.addEventListener(name, react, true);
  build();
  return () => { window.removeEventListener("keydown", shortcuts, true); for (const [name, react] of heard) document.removeEventListener(name, react, true); window.removeEventListener("resize", full); sizes.disconnect(); playing = false; clearTimeout(late); for (const [name, react] of events) model.off(name, react); };
}
export default { render };
