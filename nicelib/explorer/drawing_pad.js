// A pad of side x side grey pixels: paint with a pointer, or with the keyboard. Painting needs no answer from the kernel.
function render({ model, el }) {
  const side = model.get("side");
  const zoom = Math.floor(252 / side);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side * zoom;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute(
    "aria-label",
    "Drawing pad. Draw with the mouse; or arrow keys move the pen, space puts it down and lifts it.",
  );
  canvas.style.cssText = "touch-action: none; cursor: crosshair; background: black; max-width: none";
  el.appendChild(canvas);

  const context = canvas.getContext("2d");
  let pixels, last, down = false, pen = { x: side / 2, y: side / 2 }, focused = false;

  function draw() {
    for (let i = 0; i < pixels.length; i++) {
      context.fillStyle = `rgb(${pixels[i]}, ${pixels[i]}, ${pixels[i]})`;
      context.fillRect((i % side) * zoom, Math.floor(i / side) * zoom, zoom, zoom);
    }
    if (focused) {
      context.strokeStyle = down ? "#E69F00" : "#56B4E9";
      context.lineWidth = 2;
      context.strokeRect(1, 1, canvas.width - 2, canvas.height - 2);
      context.strokeRect((pen.x - 1) * zoom, (pen.y - 1) * zoom, 2 * zoom, 2 * zoom);
    }
  }

  function read() {
    const value = model.get("value"); // a DataView, or what we set ourselves
    pixels = new Uint8Array(value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength));
    draw();
  }

  // A soft round pen of about two pixels, along the line from one point to the next.
  function stroke(from, to) {
    const dx = to.x - from.x, dy = to.y - from.y, length2 = dx * dx + dy * dy;
    for (let i = 0; i < pixels.length; i++) {
      const px = (i % side) + 0.5 - from.x, py = Math.floor(i / side) + 0.5 - from.y;
      const t = length2 ? Math.min(1, Math.max(0, (px * dx + py * dy) / length2)) : 0;
      const distance = Math.hypot(px - t * dx, py - t * dy);
      pixels[i] = Math.max(pixels[i], 255 * Math.min(1, Math.max(0, 1.7 - distance)));
    }
    draw();
    model.set("value", new DataView(pixels.slice().buffer));
    model.save_changes(); // while one message is under way, only the newest value waits
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return { x: (side * (event.clientX - box.left)) / box.width, y: (side * (event.clientY - box.top)) / box.height };
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = place(event);
    stroke(last, next);
    last = next;
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (last = undefined));

  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move && event.key !== " ") return; // Tab and all others keep their meaning
    event.preventDefault();
    event.stopPropagation();
    const from = { ...pen };
    if (move) {
      pen.x = Math.min(side, Math.max(0, pen.x + move[0]));
      pen.y = Math.min(side, Math.max(0, pen.y + move[1]));
    } else down = !down;
    if (down) stroke(from, pen);
    else draw();
  });
  canvas.addEventListener("focus", () => { focused = canvas.matches(":focus-visible"); draw(); });
  canvas.addEventListener("blur", () => { focused = down = false; draw(); });

  model.on("change:value", read);
  read();
  return () => model.off("change:value", read);
}
export default { render };
