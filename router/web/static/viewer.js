// The radiograph on an image's page. Its numbers come once, decoded by a process of the node; the window is moved here.
// The window's mathematics is that of router/classify/display.py, and a test compares the two.
"use strict";
(() => {
  const viewer = document.querySelector("[data-viewer]");
  if (!viewer) return;
  const part = (name) => viewer.querySelector(`[data-part="${name}"]`);
  const canvas = part("canvas"), centre = part("centre"), width = part("width"), frame = part("frame");
  const context = canvas.getContext("2d");
  canvas.hidden = false;
  const SOURCES = { lut: "As in the file (VOI LUT)", window: "As in the file", none: "Range of most values", flat: "Range of most values" };
  const NOTES = {
    none: "The file asks for no window: what most values need is shown.",
    flat: "The window in the file shows nothing of this image: what most values need is shown instead.",
  };
  let film = null; // what Film.encoded says, with `table` (grey levels as the file asks for) and `numbers`
  let wanted = null; // the window that somebody chose; null: as the file asks
  let inverted = false, full = false;
  let coming = null; // the request that is under way
  let drawing = false;

  function say(text) {
    part("status").textContent = text;
  }

  /** There is no picture: why, in the picture's place. What was shown before goes, or it would be taken for what is meant. */
  function give(problem) {
    canvas.hidden = true;
    part("controls").hidden = !film;
    say(problem);
  }

  /** Grey level in [0, 1] of a value (PS3.3 C.11.2.1.2, C.11.2.1.3). */
  function level(value, window) {
    if (window.function === "SIGMOID") {
      const steep = (-4 * (value - window.centre)) / window.width;
      return 1 / (1 + Math.exp(Math.min(50, Math.max(-50, steep))));
    }
    const at = window.function === "LINEAR_EXACT"
      ? (value - window.centre) / window.width + 0.5
      : (value - (window.centre - 0.5)) / Math.max(window.width - 1, 1e-6) + 0.5;
    return Math.min(1, Math.max(0, at));
  }

  /** What each number looks like, as the four bytes of a pixel. Number 0 is padding, and black. */
  function colours() {
    const made = new Uint32Array(film.levels + 1);
    made[0] = 0xff000000;
    for (let number = 1; number <= film.levels; number++) {
      let grey = film.table[number - 1] / 255;
      if (wanted) {
        grey = level(film.slope * number + film.intercept, wanted);
        if (film.inverted) grey = 1 - grey;
      }
      made[number] = 0xff000000 | (Math.round((inverted ? 1 - grey : grey) * 255) * 0x010101);
    }
    return made;
  }

  function draw() {
    drawing = false;
    const picture = new ImageData(film.width, film.height);
    const pixels = new Uint32Array(picture.data.buffer);
    if (film.levels) {
      const made = colours();
      for (let at = 0; at < pixels.length; at++) pixels[at] = made[film.numbers[at]];
    } else {
      for (let at = 0, from = 0; at < pixels.length; at++, from += 3) {
        pixels[at] = 0xff000000 | (film.numbers[from + 2] << 16) | (film.numbers[from + 1] << 8) | film.numbers[from];
      }
    }
    context.putImageData(picture, 0, 0);
    canvas.setAttribute("aria-label", describe());
  }

  /** Once before the next picture of the screen, however many changes there are. */
  function redraw() {
    if (film && !drawing) {
      drawing = true;
      requestAnimationFrame(draw);
    }
    if (film) tell();
  }

  const current = () => wanted || film.window;
  const written = (value) => String(Number(value.toPrecision(Math.abs(value) >= 1000 ? 5 : 3)));

  function describe() {
    const size = `${film.columns} by ${film.rows} pixels`;
    const of = film.frames > 1 ? `, frame ${film.frame} of ${film.frames}` : "";
    if (!film.levels) return `Colour picture, ${size}${of}`;
    const window = current();
    return `${viewer.dataset.name}, ${size}${of}, window centre ${written(window.centre)}, width ${written(window.width)}${inverted ? ", inverted" : ""}`;
  }

  /** Controls say what is shown. */
  function tell() {
    part("frame-text").textContent = `${film.frame} of ${film.frames}`;
    if (!film.levels) return;
    const window = current();
    for (const [slider, value] of [[centre, window.centre], [width, window.width]]) {
      slider.value = String(value);
      slider.setAttribute("aria-valuetext", written(value));
      viewer.querySelector(`output[for="${slider.id}"]`).textContent = written(value);
    }
    part("invert").setAttribute("aria-pressed", String(inverted));
    part("full").setAttribute("aria-pressed", String(full));
    for (const button of part("presets").children) {
      const meant = button.window;
      const same = meant === wanted || (meant && wanted && meant.centre === wanted.centre && meant.width === wanted.width);
      button.setAttribute("aria-pressed", String(Boolean(same)));
    }
  }

  /** Ends and steps of the sliders: 256 steps over the values that are there. */
  function grade() {
    const span = Math.max(film.most - film.least, 1e-3), asked = film.window;
    const step = span >= 512 ? Math.round(span / 256) : span >= 16 ? 1 : span / 256;
    centre.min = String(step * Math.floor(Math.min(film.least - span / 4, asked.centre) / step));
    centre.max = String(step * Math.ceil(Math.max(film.most + span / 4, asked.centre) / step));
    width.min = String(step);
    width.max = String(step * Math.ceil(Math.max(span * 1.5, asked.width) / step));
    for (const slider of [centre, width]) slider.step = String(step);
  }

  function offer() {
    const whole = Math.max(film.most - film.least, 1);
    const presets = [[SOURCES[film.source], null]];
    if (film.source === "window") film.windows.slice(1).forEach((one) => presets.push([one.name, windowOf(one.centre, one.width)]));
    presets.push(["Full range", { centre: (film.least + film.most) / 2, width: whole, function: "LINEAR_EXACT" }]);
    part("presets").replaceChildren(...presets.map(([name, window]) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "plain small", textContent: name, window });
      button.addEventListener("click", () => {
        wanted = window;
        redraw();
      });
      return button;
    }));
    part("note").textContent = NOTES[film.source] || "";
  }

  const windowOf = (at, wide) => ({ centre: at, width: Math.max(wide, film.window.function === "LINEAR" ? 1 : 1e-3), function: film.window.function });

  function decode(buffer) {
    const size = new DataView(buffer).getUint32(0, true);
    const made = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
    made.levels = made.levels || 0;
    made.table = new Uint8Array(buffer.slice(4 + size, 4 + size + made.levels));
    const rest = buffer.slice(4 + size + made.levels);
    made.numbers = made.levels ? new Uint16Array(rest) : new Uint8Array(rest);
    return made;
  }

  async function load(number) {
    if (coming) coming.abort();
    const mine = (coming = new AbortController());
    say(full ? "Decoding all pixels …" : "Decoding …");
    try {
      const address = `${viewer.dataset.pixels}?frame=${number}${full ? "&full=1" : ""}`;
      const answer = await fetch(address, { signal: mine.signal });
      const type = answer.headers.get("content-type") || "";
      if (type.startsWith("application/json")) return give((await answer.json()).problem);
      if (!answer.ok || !type.startsWith("application/octet-stream")) {
        return say(answer.redirected ? "You are signed out: reload this page." : `The node could not show it now (${answer.status}): reload this page.`);
      }
      const first = !film;
      film = decode(await answer.arrayBuffer());
      if (first) offer();
      begin();
    } catch (error) {
      if (error.name !== "AbortError") say("The node does not answer: reload this page.");
    }
  }

  function begin() {
    canvas.hidden = false;
    canvas.width = film.width;
    canvas.height = film.height;
    part("film").style.setProperty("--ratio", String(film.width / film.height));
    part("film").classList.toggle("full", full);
    part("controls").hidden = false;
    part("frames").hidden = film.frames < 2;
    frame.max = String(film.frames);
    frame.value = String(film.frame);
    for (const name of ["centre", "width"]) part(name).parentElement.hidden = !film.levels;
    for (const name of ["presets", "invert"]) part(name).hidden = !film.levels;
    part("full").hidden = Math.max(film.rows, film.columns) <= Math.max(film.height, film.width) && !full;
    if (film.levels) grade();
    say(film.levels ? "" : "A colour picture: it has no window.");
    redraw();
  }

  for (const slider of [centre, width]) {
    slider.addEventListener("input", () => {
      // The other one stays what it was, exactly, and not where its slider could put it.
      const window = current();
      wanted = slider === centre ? windowOf(Number(centre.value), window.width) : windowOf(window.centre, Number(width.value));
      redraw();
    });
  }

  let frameTimer = 0;
  frame.addEventListener("input", () => {
    clearTimeout(frameTimer);
    part("frame-text").textContent = `${frame.value} of ${film.frames}`;
    frameTimer = setTimeout(() => load(Number(frame.value)), 150);
  });

  part("invert").addEventListener("click", () => {
    inverted = !inverted;
    redraw();
  });

  part("full").addEventListener("click", () => {
    full = !full;
    load(film.frame);
  });

  part("reset").addEventListener("click", () => {
    const again = full || film.frame !== 1;
    wanted = null;
    inverted = full = false;
    for (const id of ["heat", "layer"]) document.getElementById(id)?.replaceChildren();
    if (part("heat-of")) part("heat-of").value = "";
    if (again) load(1);
    else redraw();
  });

  // With a mouse also on the picture, as viewers of archives do: to the side for the width, up and down for the centre.
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0 || !film || !film.levels) return;
    const from = { x: event.clientX, y: event.clientY, window: current(), per: Math.max(film.most - film.least, 1e-3) / 512 };
    canvas.setPointerCapture(event.pointerId);
    canvas.onpointermove = (move) => {
      wanted = windowOf(from.window.centre + (move.clientY - from.y) * from.per, from.window.width + (move.clientX - from.x) * from.per);
      redraw();
    };
    canvas.onlostpointercapture = () => (canvas.onpointermove = null);
  });

  viewer.addEventListener("input", (event) => {
    if (event.target.dataset.part === "opacity") part("film").style.setProperty("--opacity", event.target.value / 100);
  });
  viewer.addEventListener("htmx:afterSwap", () => part("film").style.removeProperty("--opacity"));

  load(1);
})();
