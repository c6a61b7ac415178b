"use strict";
(function () {
  const MAP = window.MAP, n = MAP.n, own = MAP.own;
  const words = JSON.parse(document.getElementById("map-words").textContent);
  const find = (id) => document.getElementById("map-" + id);
  const stage = find("stage"), card = find("card"), legend = find("legend"), inside = find("inside");
  const root = document.body.dataset.root, language = document.documentElement.lang;
  // Pixels around the pointer in which a point is hovered; radius of a click that is no drag.
  const NEAR = 8, STILL = 4, PAD = 28, CELLS = 256;
  // Milliseconds between frames that are felt, and points that are always drawn.
  const SLOW = 50, FEWEST = 25000, CROWD = 100000;
  let X, Y, rows, coloring, groups = {}, colorings = [own];
  let chosen = new Set(), polygon = null, insideRows = [], pinned = -1, hovered = -1;

  function say(key, values) {
    let text = words["map." + key];
    Object.keys(values || {}).forEach((name) => { text = text.split("{" + name + "}").join(values[name]); });
    return text;
  }
  const count = (value) => value.toLocaleString(language);
  function share(part) {
    const digits = { maximumFractionDigits: part < 0.1 ? 1 : 0 };
    return (100 * part).toLocaleString(language, digits) + (language === "ru" ? "\u202f%" : " %");
  }
  function number(value) { return Number(value.toPrecision(3)).toLocaleString(language, { maximumSignificantDigits: 3 }); }
  function make(name, looks, text) {
    const made = document.createElement(name);
    if (looks) made.className = looks;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function act(text, done) {
    const button = make("button", "", text);
    button.type = "button";
    button.addEventListener("click", done);
    return button;
  }

  // --- What the data say -------------------------------------------------------------------------

  async function inflate(text) {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function numbers(text) {
    const bytes = await inflate(text);
    let at = 0;
    return {
      next: function () {
        let value = 0, scale = 1, byte;
        do { byte = bytes[at++]; value += (byte & 127) * scale; scale *= 128; } while (byte > 127);
        return value;
      },
    };
  }

  async function positions() {
    const bytes = await inflate(MAP.positions);
    X = new Uint16Array(n); Y = new Uint16Array(n);
    for (let i = 0; i < n; i++) {
      const last = bytes[2 * n + i];
      X[i] = bytes[i] << 4 | last >> 4;
      Y[i] = bytes[n + i] << 4 | last & 15;
    }
  }

  async function rowNumbers() {
    rows = new Uint32Array(n);
    if (MAP.rows === null) { for (let i = 0; i < n; i++) rows[i] = i; return; }
    const steps = await numbers(MAP.rows);
    for (let i = 0, row = 0; i < n; i++) rows[i] = row += steps.next();
  }

  async function codesOf(one) {
    const bytes = await inflate(one.codes);
    if (bytes.length === n) return bytes;
    const codes = new Uint16Array(n);
    for (let i = 0; i < n; i++) codes[i] = bytes[i] | bytes[n + i] << 8;
    return codes;
  }

  // Each path is told by the one before: numbers that grew, or a shared beginning and a new rest.
  let paths = null;
  async function readPaths() {
    if (paths || !MAP.paths) return paths;
    const kinds = await numbers(MAP.paths.kinds), steps = await numbers(MAP.paths.steps);
    const lengths = await numbers(MAP.paths.lengths);
    const text = new TextDecoder().decode(await inflate(MAP.paths.text));
    const read = new Array(n);
    let path = "", parts = [""], at = 0;
    for (let i = 0; i < n; i++) {
      const kind = kinds.next();
      if (kind) {
        const length = lengths.next();
        path = path.slice(0, kind - 1) + text.slice(at, at + length);
        at += length;
        parts = path.split(/([0-9]{1,9})/);
      } else {
        for (let p = 1; p < parts.length; p += 2) {
          const told = steps.next();
          if (!told) continue;
          const step = told % 2 ? -(told + 1) / 2 : told / 2;
          parts[p] = String(Number(parts[p]) + step).padStart(parts[p].length, "0");
        }
        path = parts.join("");
      }
      read[i] = path;
    }
    return (paths = read);
  }

  // Which thumbnail shows a row: sprite and place in it.
  let tiles = new Map();
  async function readTiles() {
    if (!MAP.tiles) return;
    const bytes = await inflate(MAP.tiles.rows);
    const shown = new Int32Array(bytes.buffer, 0, bytes.length / 4);
    let at = 0;
    MAP.tiles.counts.forEach((many, sprite) => {
      for (let i = 0; i < many; i++, at++)
        if (shown[at] >= 0 && !tiles.has(shown[at])) tiles.set(shown[at], [sprite, i]);
    });
  }

  // --- From the map to the screen ----------------------------------------------------------------

  // One unit of a position in units of the data, so that both axes have one scale.
  const span = (ends) => (ends[1] - ends[0]) / (MAP.levels - 1);
  const ux = span(MAP.x) || span(MAP.y) || 1, uy = span(MAP.y) || ux;
  const view = { x: 0, y: 0, scale: 1 };
  let width = 1, height = 1, dpr = 1, fit = 1;

  function reset() {
    const last = MAP.levels - 1;
    const wide = (span(MAP.x) ? last : 0) * ux, high = (span(MAP.y) ? last : 0) * uy;
    fit = Math.min((width - 2 * PAD) / (wide || 1e-9), (height - 2 * PAD) / (high || 1e-9));
    if (!wide && !high) fit = 1;
    view.x = wide / 2; view.y = high / 2; view.scale = fit;
  }
  const screenX = (x) => width / 2 + (x * ux - view.x) * view.scale;
  const screenY = (y) => height / 2 - (y * uy - view.y) * view.scale;
  const mapX = (x) => ((x - width / 2) / view.scale + view.x) / ux;
  const mapY = (y) => ((height / 2 - y) / view.scale + view.y) / uy;

  function zoom(factor, x, y) {
    const before = [mapX(x) * ux, mapY(y) * uy];
    const most = Math.max(fit, 60 / Math.min(ux, uy));
    view.scale = Math.min(Math.max(view.scale * factor, fit / 2), most);
    view.x += before[0] - mapX(x) * ux;
    view.y += before[1] - mapY(y) * uy;
    moved();
  }
  function moved() {
    rest();
    if (pinned < 0) hover(-1); else place(pinned);
    draw();
  }

  function pointSize() {
    const alone = Math.sqrt(width * height / n) * 0.45;
    return Math.min(Math.max(alone, 1.6), 6) * Math.min(Math.pow(view.scale / fit, 0.4), 4);
  }

  // --- Points: by WebGL, or into pixels where there is none -------------------------------------

  // Points are drawn in an order without meaning, or the last clusters would cover the first.
  const order = new Uint32Array(n);
  (function () {
    let step = Math.max(1, Math.floor(n * 0.6180339887));
    const common = (a, b) => (b ? common(b, a % b) : a);
    while (common(n, step) > 1) step++;
    for (let i = 0, at = 0; i < n; i++, at = (at + step) % n) order[i] = at;
  })();
  const FRONT = 255, BEHIND = 128;
  const shades = new Uint8Array(4 * n);
  let points = null;

  function glPoints(canvas) {
    if (location.hash === "#2d") return null;
    const gl = canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true });
    if (!gl) return null;
    const program = gl.createProgram();
    const shader = (kind, text) => {
      const made = gl.createShader(kind);
      gl.shaderSource(made, text); gl.compileShader(made); gl.attachShader(program, made);
    };
    shader(gl.VERTEX_SHADER,
      "attribute vec2 at; attribute vec4 shade; uniform vec2 scale, shift; uniform mediump float size; uniform float only; varying vec4 color;" +
      "void main() { bool here = abs(shade.a - only) < 0.2; gl_PointSize = size; color = shade;" +
      "gl_Position = here ? vec4(at * scale + shift, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0); }");
    shader(gl.FRAGMENT_SHADER,
      "precision mediump float; varying vec4 color; uniform mediump float size; uniform float alpha;" +
      "void main() { float away = length(gl_PointCoord - 0.5) * size;" +
      "float a = alpha * (size < 2.5 ? 1.0 : clamp(0.5 * size - away + 0.3, 0.0, 1.0)); gl_FragColor = vec4(color.rgb * a, a); }");
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
    gl.useProgram(program);
    const place = {};
    ["scale", "shift", "size", "only", "alpha"].forEach((name) => { place[name] = gl.getUniformLocation(program, name); });
    const buffer = (name, size, kind, whole) => {
      const made = gl.createBuffer(), at = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, made);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, size, kind, whole, 0, 0);
      return made;
    };
    buffer("at", 2, gl.UNSIGNED_SHORT, false);
    const at = new Uint16Array(2 * n);
    for (let i = 0; i < n; i++) { at[2 * i] = X[order[i]]; at[2 * i + 1] = Y[order[i]]; }
    gl.bufferData(gl.ARRAY_BUFFER, at, gl.STATIC_DRAW);
    const colors = buffer("shade", 4, gl.UNSIGNED_BYTE, true);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    return {
      recolor: function () { gl.bindBuffer(gl.ARRAY_BUFFER, colors); gl.bufferData(gl.ARRAY_BUFFER, shades, gl.DYNAMIC_DRAW); },
      draw: function (many) {
        gl.viewport(0, 0, canvas.width, canvas.height);
        gl.clear(gl.COLOR_BUFFER_BIT);
        gl.uniform2f(place.scale, 2 * ux * view.scale / width, 2 * uy * view.scale / height);
        gl.uniform2f(place.shift, -2 * view.x * view.scale / width, -2 * view.y * view.scale / height);
        gl.uniform1f(place.size, pointSize() * dpr);
        const pass = (only, alpha) => { gl.uniform1f(place.only, only); gl.uniform1f(place.alpha, alpha); gl.drawArrays(gl.POINTS, 0, many); };
        // Of very many points each weighs less, so that crowds still show where they are thickest.
        if (chosen.size) pass(BEHIND / 255, n > CROWD ? 0.4 : 0.6);
        pass(FRONT / 255, n > CROWD && !chosen.size ? 0.55 : 0.8);
      },
    };
  }

  function pixelPoints(canvas) {
    const context = canvas.getContext("2d");
    return {
      recolor: function () {},
      draw: function (many) {
        const w = canvas.width, h = canvas.height, image = context.createImageData(w, h);
        const out = new Uint32Array(image.data.buffer), shade = new Uint32Array(shades.buffer);
        const side = Math.max(1, Math.round(pointSize() * dpr * 0.9)), half = side >> 1;
        [BEHIND, FRONT].forEach((only) => {
          for (let i = 0; i < many; i++) {
            if (shades[4 * i + 3] !== only) continue;
            const x = Math.round(screenX(X[order[i]]) * dpr) - half, y = Math.round(screenY(Y[order[i]]) * dpr) - half;
            if (x < 0 || y < 0 || x + side > w || y + side > h) continue;
            const color = (shade[i] | 0xff000000) >>> 0;
            for (let dy = 0; dy < side; dy++) out.fill(color, (y + dy) * w + x, (y + dy) * w + x + side);
          }
        });
        context.putImageData(image, 0, 0);
      },
    };
  }

  function engage() {
    let canvas = find("points");
    points = glPoints(canvas);
    TEST.engine = points ? "webgl" : "2d";
    if (points) {
      // A card that slept comes back with nothing on it.
      canvas.addEventListener("webglcontextlost", (event) => event.preventDefault(), { once: true });
      canvas.addEventListener("webglcontextrestored", () => { engage(); recolor(); }, { once: true });
      return;
    }
    // A canvas that was asked for WebGL gives nothing else.
    canvas.replaceWith((canvas = canvas.cloneNode()));
    points = pixelPoints(canvas);
  }

  const rgb = (code) => [1, 3, 5].map((at) => parseInt(code.slice(at, at + 2), 16));
  function ramp(part) {
    const at = Math.min(part, 0.9999) * (MAP.ramp.length - 1), low = Math.floor(at);
    const a = rgb(MAP.ramp[low]), b = rgb(MAP.ramp[low + 1]);
    return a.map((value, i) => Math.round(value + (b[i] - value) * (at - low)));
  }

  // Colour of every code; the codes that are chosen stand in front, all others are grey.
  function recolor() {
    const numeric = coloring.kind === "number", many = numeric ? 256 : coloring.names.length;
    const table = new Uint8Array(4 * many), grey = rgb(MAP.behind);
    for (let code = 0; code < many; code++) {
      const front = !chosen.size || chosen.has(code);
      const own = numeric ? (code === 255 ? grey : ramp(code / 254)) : rgb(coloring.colors[code]);
      table.set([...(front ? own : grey), front ? FRONT : BEHIND], 4 * code);
    }
    const codes = coloring.read;
    for (let i = 0; i < n; i++) {
      const from = 4 * codes[order[i]], to = 4 * i;
      shades[to] = table[from]; shades[to + 1] = table[from + 1]; shades[to + 2] = table[from + 2]; shades[to + 3] = table[from + 3];
    }
    points.recolor();
    draw();
  }

  // --- Around the points: density behind, names, lasso and the hovered point before -------------

  const under = find("under").getContext("2d"), over = find("over").getContext("2d");
  let density = null;

  function drawUnder() {
    under.setTransform(dpr, 0, 0, dpr, 0, 0);
    under.clearRect(0, 0, width, height);
    if (!density) return;
    const x = screenX(0), y = screenY(MAP.levels);
    under.drawImage(density, x, y, screenX(MAP.levels) - x, screenY(0) - y);
  }

  function middles() {
    const many = coloring.names.length, sums = new Float64Array(3 * many), codes = coloring.read;
    for (let i = 0; i < n; i++) { const at = 3 * codes[i]; sums[at]++; sums[at + 1] += X[i]; sums[at + 2] += Y[i]; }
    return coloring.shown.filter((code) => code < many - 1 && sums[3 * code]).map((code) =>
      ({ code: code, x: sums[3 * code + 1] / sums[3 * code], y: sums[3 * code + 2] / sums[3 * code] }));
  }

  function drawNames() {
    const taken = [];
    over.font = "600 13px system-ui, sans-serif";
    over.textAlign = "center"; over.textBaseline = "middle"; over.lineJoin = "round";
    coloring.middles = coloring.middles || middles();
    coloring.middles.forEach((one) => {
      if (chosen.size && !chosen.has(one.code)) return;
      const x = screenX(one.x), y = screenY(one.y), name = coloring.names[one.code], w = over.measureText(name).width / 2 + 3;
      // A larger one stands where it is; a smaller one that would cover it waits for a closer look.
      if (taken.some((t) => Math.abs(t[0] - x) < t[2] + w && Math.abs(t[1] - y) < 17)) return;
      taken.push([x, y, w]);
      over.lineWidth = 4; over.strokeStyle = "#ffffffe6"; over.strokeText(name, x, y);
      over.fillStyle = "#1b2028"; over.fillText(name, x, y);
    });
  }

  function ring(i, look) {
    over.beginPath(); over.arc(screenX(X[i]), screenY(Y[i]), pointSize() / 2 + 3, 0, 7);
    over.strokeStyle = "#fff"; over.lineWidth = 4; over.stroke();
    over.strokeStyle = look; over.lineWidth = 2; over.stroke();
  }

  function drawOver() {
    over.setTransform(dpr, 0, 0, dpr, 0, 0);
    over.clearRect(0, 0, width, height);
    if (coloring.kind === "cluster" && find("names").checked) drawNames();
    if (polygon) {
      over.beginPath();
      polygon.forEach((p) => over.lineTo(screenX(p[0]), screenY(p[1])));
      over.closePath();
      over.fillStyle = "#1f5fb014"; over.fill();
      over.strokeStyle = "#1f5fb0"; over.lineWidth = 1.5; over.stroke();
    }
    if (hovered >= 0) ring(hovered, "#1b2028");
    if (pinned >= 0) ring(pinned, "#1b2028");
  }

  // While the map moves, a slow machine draws the first of the points only, and all when it rests.
  let waiting = false, moving = 0, most = n;
  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(function () {
      const began = performance.now(), many = moving ? Math.min(most, n) : n;
      waiting = false;
      drawUnder(); points.draw(many); drawOver();
      TEST.frames++;
      if (!moving) return;
      requestAnimationFrame(function () {
        const took = performance.now() - began;
        if (took > SLOW) most = Math.max(FEWEST, Math.floor(many * Math.max(SLOW / took, 0.25)));
      });
    });
  }
  function rest() {
    clearTimeout(moving);
    moving = setTimeout(function () {
      if (drag && drag.far) rest(); else { moving = 0; draw(); }
    }, 200);
  }

  function resize() {
    const box = stage.getBoundingClientRect(), first = width === 1, whole = view.scale === fit;
    width = Math.max(1, stage.clientWidth); height = Math.max(1, stage.clientHeight);
    dpr = window.devicePixelRatio || 1;
    stage.querySelectorAll("canvas").forEach((canvas) => { canvas.width = Math.round(box.width * dpr); canvas.height = Math.round(box.height * dpr); });
    if (first || whole) reset();
    moved();
  }

  // --- The point under the pointer ---------------------------------------------------------------

  let starts, cellRows;
  const CELL = MAP.levels / CELLS;
  function index() {
    starts = new Uint32Array(CELLS * CELLS + 1); cellRows = new Uint32Array(n);
    const cell = (i) => Math.floor(Y[i] / CELL) * CELLS + Math.floor(X[i] / CELL);
    for (let i = 0; i < n; i++) starts[cell(i) + 1]++;
    for (let c = 0; c < CELLS * CELLS; c++) starts[c + 1] += starts[c];
    const at = starts.slice();
    for (let i = 0; i < n; i++) cellRows[at[cell(i)]++] = i;
  }

  // The nearest point on the screen, in front before behind; of equals the first row.
  function nearest(x, y) {
    const inGrid = (value) => Math.min(Math.max(Math.floor(value / CELL), 0), CELLS - 1);
    const x0 = inGrid(mapX(x - NEAR)), x1 = inGrid(mapX(x + NEAR)), y0 = inGrid(mapY(y + NEAR)), y1 = inGrid(mapY(y - NEAR));
    let best = -1, least = NEAR * NEAR, front = false;
    for (let cy = y0; cy <= y1; cy++) for (let at = starts[cy * CELLS + x0]; at < starts[cy * CELLS + x1 + 1]; at++) {
      const i = cellRows[at], dx = screenX(X[i]) - x, dy = screenY(Y[i]) - y, away = dx * dx + dy * dy;
      if (away > NEAR * NEAR) continue;
      const first = !chosen.size || chosen.has(coloring.read[i]);
      if (best < 0 || (first && !front) || (first === front && (away < least || (away === least && i < best)))) { best = i; least = away; front = first; }
    }
    return best;
  }

  const clusterName = (code) => (code === own.names.length - 1 ? own.names[code] : say("cluster", { n: own.names[code] }));
  const clusterPage = (code) => "c/" + (code === own.names.length - 1 ? "noise" : String(code).padStart(3, "0")) + ".html";

  async function fill(i) {
    const known = await readPaths();
    if (i !== (pinned >= 0 ? pinned : hovered)) return;
    card.textContent = "";
    card.dataset.row = rows[i];
    const tile = tiles.get(i), code = own.read[i];
    if (tile) {
      const thumb = make("i", "thumb"), side = MAP.tiles.side, columns = MAP.tiles.columns;
      thumb.style.cssText = "width:" + side + "px;height:" + side + "px";
      thumb.style.backgroundImage = "url(" + MAP.tiles.sprites[tile[0]] + ")";
      thumb.style.backgroundPosition = -side * (tile[1] % columns) + "px " + -side * Math.floor(tile[1] / columns) + "px";
      card.appendChild(thumb);
    }
    const who = make("div", "who"), swatch = make("i", "swatch");
    swatch.style.background = own.colors[code];
    who.append(swatch, clusterName(code));
    card.appendChild(who);
    if (coloring !== own) {
      const value = coloring.read[i], title = find("color").selectedOptions[0].textContent;
      const told = coloring.kind !== "number" ? coloring.names[value] : value === 255 ? say("unknown") : "≈ " + number(coloring.low + (coloring.high - coloring.low) * value / 254);
      card.appendChild(make("div", "more", title + ": " + told));
    }
    card.appendChild(make("div", "path", known ? known[i] : say("row", { n: count(rows[i]) })));
    if (!tile && MAP.tiles) card.appendChild(make("div", "more", say("none")));
    if (pinned >= 0) {
      const acts = make("div", "acts"), link = make("a", "", say("open"));
      link.href = clusterPage(code);
      acts.append(link, act(say("close"), () => pin(-1)));
      card.appendChild(acts);
    }
    place(i);
  }

  function place(i) {
    const x = screenX(X[i]), y = screenY(Y[i]);
    card.hidden = x < 0 || y < 0 || x > width || y > height;
    const w = card.offsetWidth, h = card.offsetHeight;
    card.style.left = Math.max(4, x + 16 + w > width ? x - 16 - w : x + 16) + "px";
    card.style.top = Math.max(4, Math.min(y - h / 2, height - h - 4)) + "px";
  }

  function hover(i) {
    if (i === hovered || pinned >= 0) return;
    hovered = i;
    stage.classList.toggle("over", i >= 0);
    if (i < 0) card.hidden = true; else fill(i);
    draw();
  }
  function pin(i) {
    pinned = i; hovered = -1;
    card.classList.toggle("pinned", i >= 0);
    if (i < 0) card.hidden = true; else fill(i);
    draw();
  }

  // --- The lasso ---------------------------------------------------------------------------------

  // A point lies inside where a ray to the right crosses the outline an odd number of times; an edge
  // holds its lower end and not its upper one, so no crossing counts twice.
  function within(outline) {
    const xs = outline.map((p) => p[0]), ys = outline.map((p) => p[1]), m = outline.length;
    const left = Math.min(...xs), right = Math.max(...xs), low = Math.min(...ys), high = Math.max(...ys);
    const found = [];
    for (let i = 0; i < n; i++) {
      const x = X[i], y = Y[i];
      if (x < left || x > right || y < low || y > high) continue;
      let odd = false;
      for (let a = 0, b = m - 1; a < m; b = a++)
        if (ys[a] > y !== ys[b] > y && x < (xs[b] - xs[a]) * (y - ys[a]) / (ys[b] - ys[a]) + xs[a]) odd = !odd;
      if (odd) found.push(i);
    }
    return found;
  }

  function select(outline) {
    polygon = outline && outline.length > 2 ? outline : null;
    insideRows = polygon ? within(polygon) : [];
    TEST.polygon = polygon; TEST.count = insideRows.length;
    inside.hidden = !polygon;
    if (polygon) tellInside();
    draw();
  }

  function tellInside() {
    inside.textContent = "";
    const head = make("h2", "", say("inside"));
    head.appendChild(act(say("clear"), () => select(null)));
    inside.append(head, make("div", "big", say("rows", { n: count(insideRows.length) })));
    inside.appendChild(make("div", "count", share(insideRows.length / n) + (n < MAP.total ? " · " + say("inside.sample") : "")));
    const acts = make("div", "acts"), copy = act(say("copy"), async function () {
      await copyText(insideRows.map((i) => (paths ? paths[i] : rows[i])).join("\n") + "\n");
      copy.textContent = say("copied");
    });
    acts.append(copy, act("CSV", saveCsv));
    inside.appendChild(acts);
    const counts = new Map();
    insideRows.forEach((i) => counts.set(own.read[i], (counts.get(own.read[i]) || 0) + 1));
    const ranked = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    ranked.slice(0, 12).forEach((one) => inside.appendChild(part(own.colors[one[0]], clusterName(one[0]), one[1])));
    const rest = ranked.slice(12).reduce((sum, one) => sum + one[1], 0);
    if (rest) inside.appendChild(part(MAP.behind, say("others", { n: ranked.length - 12 }), rest));
  }
  function part(color, name, many) {
    const line = make("div", "share"), swatch = make("i", "swatch");
    swatch.style.background = color;
    line.append(swatch, make("span", "", name), make("span", "count", count(many) + " · " + share(many / insideRows.length)));
    return line;
  }

  async function copyText(text) {
    await readPaths();
    try { await navigator.clipboard.writeText(text); } catch (refused) {
      const box = make("textarea"); box.value = text;
      document.body.appendChild(box); box.select(); document.execCommand("copy"); box.remove();
    }
  }

  function csv() {
    const quoted = (text) => (/[",\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text);
    const lines = insideRows.map((i) => {
      const code = own.read[i], last = own.names.length - 1;
      return rows[i] + "," + quoted(paths ? paths[i] : "") + "," + (code === last ? -1 : own.names[code]);
    });
    return "row,path,cluster\n" + lines.join("\n") + (lines.length ? "\n" : "");
  }
  async function saveCsv() {
    await readPaths();
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "map-selection.csv";
    document.body.appendChild(link); link.click(); link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // --- Legend and colours ------------------------------------------------------------------------

  function toggle(codes) {
    const all = codes.every((code) => chosen.has(code));
    codes.forEach((code) => (all ? chosen.delete(code) : chosen.add(code)));
    tellLegend(); recolor();
  }

  function tellLegend() {
    const at = legend.scrollTop, focus = document.activeElement && document.activeElement.dataset.code;
    legend.textContent = "";
    legend.classList.toggle("chosen", chosen.size > 0);
    const head = make("h2", "", find("color").selectedOptions[0].textContent);
    legend.appendChild(head);
    if (coloring.kind === "number") { tellRamp(); return; }
    if (chosen.size) head.appendChild(act(say("unchoose"), () => { chosen.clear(); tellLegend(); recolor(); }));
    else legend.appendChild(make("p", "hint", say("legend.hint")));
    const line = (color, name, many, codes) => {
      const button = act("", () => toggle(codes)), swatch = make("i", "swatch");
      button.className = "line"; button.dataset.code = codes[0];
      button.setAttribute("aria-pressed", codes.every((code) => chosen.has(code)));
      swatch.style.background = color; button.title = name;
      button.append(swatch, make("span", "", name), make("span", "count", count(many)));
      legend.appendChild(button);
      if (String(codes[0]) === focus) button.focus({ preventScroll: true });
    };
    const last = coloring.names.length - 1, shown = new Set(coloring.shown);
    const rest = coloring.counts.map((many, code) => code).filter((code) => !shown.has(code) && coloring.counts[code]);
    coloring.shown.filter((code) => code < last).forEach((code) => line(coloring.colors[code], coloring.names[code], coloring.counts[code], [code]));
    if (rest.length) line(coloring.colors[rest[0]], say("others", { n: count(rest.length) }), rest.reduce((sum, code) => sum + coloring.counts[code], 0), rest);
    if (shown.has(last)) line(coloring.colors[last], coloring.names[last], coloring.counts[last], [last]);
    legend.scrollTop = at;
  }

  function tellRamp() {
    const bar = make("div", "ramp"), ends = make("div", "ends");
    bar.style.background = "linear-gradient(to right," + MAP.ramp.join(",") + ")";
    ends.append(make("span", "", (coloring.beyond[0] ? "≤ " : "") + number(coloring.low)), make("span", "", (coloring.beyond[1] ? "≥ " : "") + number(coloring.high)));
    legend.append(bar, ends);
    if (coloring.unknown) legend.appendChild(make("p", "count", say("unknown") + ": " + count(coloring.unknown)));
  }

  function script(file) {
    return new Promise((done, failed) => {
      const tag = make("script");
      tag.src = file; tag.onload = done; tag.onerror = failed;
      document.body.appendChild(tag);
    });
  }

  async function color(which) {
    if (!colorings[which]) {
      await script(MAP.files[which - 1]);
      colorings[which] = window["MAP_COLOR_" + which];
    }
    const one = colorings[which];
    one.read = one.read || await codesOf(one);
    if (String(which) !== find("color").value) return;
    coloring = one;
    chosen.clear();
    TEST.color = which;
    // The middle of a cluster lies among its rows; that of a value such as "white" need not.
    find("names").disabled = one.kind !== "cluster";
    tellLegend(); recolor();
    if (pinned >= 0) fill(pinned);
  }

  // --- What a person does ------------------------------------------------------------------------

  let drag = null, cutting = false;
  function lassoMode(on) {
    cutting = on;
    find("lasso").setAttribute("aria-pressed", on);
    stage.classList.toggle("cutting", on);
  }
  const at = (event) => { const box = stage.getBoundingClientRect(); return [event.clientX - box.left - stage.clientLeft, event.clientY - box.top - stage.clientTop]; };

  function pointers() {
    stage.addEventListener("pointerdown", function (event) {
      if (event.button || card.contains(event.target)) return;
      const p = at(event);
      stage.setPointerCapture(event.pointerId);
      drag = { from: p, last: p, far: false, outline: cutting || event.shiftKey ? [[mapX(p[0]), mapY(p[1])]] : null };
    });
    stage.addEventListener("pointermove", function (event) {
      const p = at(event);
      if (!drag) { if (pinned < 0 && !card.contains(event.target)) hover(cutting ? -1 : nearest(p[0], p[1])); return; }
      if (Math.hypot(p[0] - drag.from[0], p[1] - drag.from[1]) > STILL) drag.far = true;
      if (!drag.far) return;
      if (drag.outline) {
        if (Math.hypot(p[0] - drag.last[0], p[1] - drag.last[1]) < 3) return;
        drag.outline.push([mapX(p[0]), mapY(p[1])]);
        polygon = drag.outline;
        hover(-1); draw();
      } else {
        stage.classList.add("moving");
        view.x -= (p[0] - drag.last[0]) / view.scale;
        view.y += (p[1] - drag.last[1]) / view.scale;
        moved();
      }
      drag.last = p;
    });
    const ended = function (event) {
      if (!drag) return;
      const done = drag;
      drag = null;
      stage.classList.remove("moving");
      if (done.far && done.outline) { select(done.outline); lassoMode(false); return; }
      if (!done.far && !done.outline && event.type === "pointerup") { const p = at(event), i = nearest(p[0], p[1]); pin(i === pinned ? -1 : i); }
    };
    stage.addEventListener("pointerup", ended);
    stage.addEventListener("pointercancel", ended);
    stage.addEventListener("pointerleave", () => { if (!drag) hover(-1); });
    stage.addEventListener("dblclick", (event) => { if (!card.contains(event.target)) { pin(-1); reset(); moved(); } });
    stage.addEventListener("wheel", function (event) {
      event.preventDefault();
      const p = at(event), lines = event.deltaMode === 1 ? 16 : 1;
      zoom(Math.exp(-Math.max(-240, Math.min(240, event.deltaY * lines)) * 0.002), p[0], p[1]);
    }, { passive: false });
  }

  function keys() {
    const pan = (x, y) => { view.x += x * width / 6 / view.scale; view.y += y * height / 6 / view.scale; moved(); };
    const known = {
      "+": () => zoom(1.4, width / 2, height / 2), "=": () => zoom(1.4, width / 2, height / 2),
      "-": () => zoom(1 / 1.4, width / 2, height / 2), "0": () => { reset(); moved(); },
      ArrowLeft: () => pan(-1, 0), ArrowRight: () => pan(1, 0), ArrowUp: () => pan(0, 1), ArrowDown: () => pan(0, -1),
      Escape: () => { if (pinned >= 0) pin(-1); else if (polygon) select(null); else if (chosen.size) { chosen.clear(); tellLegend(); recolor(); } lassoMode(false); },
    };
    document.addEventListener("keydown", function (event) {
      if (event.altKey || event.ctrlKey || event.metaKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName) || !known[event.key]) return;
      event.preventDefault();
      known[event.key]();
    });
    find("in").addEventListener("click", known["+"]);
    find("out").addEventListener("click", known["-"]);
    find("all").addEventListener("click", known["0"]);
    find("lasso").addEventListener("click", () => lassoMode(!cutting));
    find("names").addEventListener("change", draw);
    find("color").addEventListener("change", (event) => color(Number(event.target.value)));
  }

  // What tests look at.
  const TEST = window.MAP_TEST = {
    ready: false, frames: 0, polygon: null, count: 0, color: 0, csv: csv, view: view,
    place: (i) => { const box = stage.getBoundingClientRect(); return [box.left + stage.clientLeft + screenX(X[i]), box.top + stage.clientTop + screenY(Y[i])]; },
    select: (outline) => { select(outline); return TEST.count; },
    zoom: (factor, p) => { const box = stage.getBoundingClientRect(); zoom(factor, p[0] - box.left - stage.clientLeft, p[1] - box.top - stage.clientTop); },
    positions: () => [Array.from(X), Array.from(Y)],
    tiles: () => [...tiles.keys()],
    engine: "",
  };

  async function start() {
    if (!window.DecompressionStream) { find("wait").textContent = say("old"); return; }
    await positions();
    [own.read] = await Promise.all([codesOf(own), rowNumbers(), readTiles()]);
    coloring = own;
    find("color").value = "0";
    engage();
    if (MAP.density) { const image = new Image(); image.onload = () => { density = image; draw(); }; image.src = MAP.density; }
    index();
    pointers(); keys();
    tellLegend();
    new ResizeObserver(resize).observe(stage);
    resize(); recolor();
    find("wait").hidden = true;
    await readPaths();
    TEST.ready = true;
  }
  start();
})();
