"use strict";
// The table of two clusterings: hover tells, a click opens a cell.
(function () {
  var data = window.CROSS, table = document.getElementById("cross"), panel = document.getElementById("cell");
  if (!data || !table) return;

  function say(key, values) {
    return data.words["cross.js." + key].replace(/\{(\w+)\}/g, function (_, name) { return values[name]; });
  }
  function shown(n) { return n.toLocaleString(data.language); }
  function share(x) { return (100 * x).toLocaleString(data.language, { maximumSignificantDigits: x < 0.1 ? 2 : 3 }) + "\u00a0%"; }
  function make(name, text, kind) {
    var made = document.createElement(name);
    if (text !== undefined && text !== null) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }
  function label(side, letter, at) {
    var name = data[side].clusters[at];
    return name === null ? data[side].noise + " (" + letter + ")" : data[side].study === null ? name : letter + name;
  }
  function product(i, j) { return label("a", "a", i) + " × " + label("b", "b", j); }
  function lift(i, j) { return data.counts[i][j] * data.total / (data.a.sizes[i] * data.b.sizes[j]); }
  function facts(i, j) {
    return say("facts", {
      n: shown(data.counts[i][j]), a: label("a", "a", i), b: label("b", "b", j),
      of_a: share(data.counts[i][j] / data.a.sizes[i]), of_b: share(data.counts[i][j] / data.b.sizes[j]),
      lift: lift(i, j).toLocaleString(data.language, { maximumSignificantDigits: 3 })
    });
  }
  function picture(at, side) {
    var made = make("i", null, "thumb"), scale = side / data.side;
    made.style.width = made.style.height = side + "px";
    made.style.backgroundImage = "url(" + data.sprite + ")";
    made.style.backgroundSize = data.columns * side + "px auto";
    made.style.backgroundPosition = -(at % data.columns) * data.side * scale + "px " + -Math.floor(at / data.columns) * data.side * scale + "px";
    return made;
  }

  // The fewer the columns, the larger the photos in the cells.
  var small = data.b.clusters.length <= 12 ? 60 : data.b.clusters.length <= 20 ? 44 : 34;
  var head = table.createTHead().insertRow(), body = table.createTBody(), cells = [], i, j;
  head.appendChild(make("td"));
  for (j = 0; j < data.b.clusters.length; j++) {
    var top = make("th", label("b", "b", j));
    top.title = data.b.name + ": " + shown(data.b.sizes[j]);
    head.appendChild(top);
  }
  for (i = 0; i < data.a.clusters.length; i++) {
    var line = body.insertRow(), first = make("th", label("a", "a", i));
    first.title = data.a.name + ": " + shown(data.a.sizes[i]);
    first.appendChild(make("small", " " + shown(data.a.sizes[i])));
    line.appendChild(first);
    cells.push([]);
    for (j = 0; j < data.b.clusters.length; j++) {
      var cell = line.insertCell(), n = data.counts[i][j];
      cells[i].push(cell);
      if (!n) continue;
      cell.dataset.i = i; cell.dataset.j = j; cell.tabIndex = -1;
      cell.title = product(i, j) + ": " + facts(i, j);
      var at = data.thumbs[i + "," + j];
      if (at !== undefined) cell.appendChild(picture(at, small));
      cell.appendChild(make("b", n >= 10000 ? shown(Math.round(n / 1000)) + "k" : n));
    }
  }

  var shade = document.getElementById("shade"), photos = document.getElementById("photos");
  function paint() {
    for (var i = 0; i < cells.length; i++) for (var j = 0; j < cells[i].length; j++) {
      var n = data.counts[i][j];
      if (!n) continue;
      var x = shade.value === "a" ? n / data.a.sizes[i] : shade.value === "b" ? n / data.b.sizes[j] : Math.max(0, Math.min(1, Math.log2(lift(i, j)) / 5));
      cells[i][j].style.setProperty("--h", x.toFixed(3));
    }
  }
  shade.addEventListener("change", paint);
  if (photos) photos.addEventListener("change", function () { table.classList.toggle("plainly", !photos.checked); });
  paint();

  var open = null;
  function choose(i, j) {
    if (open) { open.classList.remove("open"); open.tabIndex = -1; }
    open = cells[i][j]; open.classList.add("open"); open.tabIndex = 0;
    var rows = data.lists[i + "," + j] || [], n = data.counts[i][j], at = data.thumbs[i + "," + j];
    panel.textContent = "";
    panel.appendChild(make("h2", product(i, j)));
    var named = make("p");
    [["a", i], ["b", j]].forEach(function (one) {
      var side = data[one[0]], words = label(one[0], one[0], one[1]) + ": " + side.name;
      if (side.pages) { var link = make("a", words); link.href = side.pages[one[1]]; named.appendChild(link); } else named.appendChild(make("span", words));
      named.appendChild(make("br"));
    });
    panel.appendChild(named);
    panel.appendChild(make("p", facts(i, j)));
    if (at !== undefined) {
      var strip = make("p", null, "thumbs");
      for (var t = 0; t < Math.min(data.each, rows.length); t++) strip.appendChild(picture(at + t, 112));
      panel.appendChild(strip);
    }
    var does = make("p", null, "does"), copy = make("button", say("copy", {})), csv = make("button", say("csv", {})), said = make("span", null, "said");
    copy.addEventListener("click", function () {
      Download.copy(rows.map(function (row) { return data.paths[row] || row; }).join("\n") + "\n", function () { said.textContent = say("copied", { n: shown(rows.length) }); });
    });
    csv.addEventListener("click", function () {
      var a = data.a.clusters[i], b = data.b.clusters[j];
      var lines = rows.map(function (row) { return [row, data.paths[row] || "", a === null ? -1 : a, b === null ? -1 : b]; });
      Download.save(product(i, j).replace(/[^\w×.-]+/g, "_") + ".csv", Download.table([["row", "path", data.a.name, data.b.name]].concat(lines)));
      said.textContent = say("saved", { n: shown(rows.length) });
    });
    does.appendChild(copy); does.appendChild(csv); does.appendChild(said);
    panel.appendChild(does);
    if (rows.length < n) panel.appendChild(make("p", say("more", { n: shown(rows.length), all: shown(n) }), "note"));
    var list = make("ol", null, "rows");
    rows.slice(0, 60).forEach(function (row) { list.appendChild(make("li", data.paths[row] || say("row", { n: row }))); });
    panel.appendChild(list);
    if (rows.length > 60) panel.appendChild(make("p", "…", "note"));
  }
  table.addEventListener("click", function (event) {
    var cell = event.target.closest("td[data-i]");
    if (cell) choose(+cell.dataset.i, +cell.dataset.j);
  });
  // Arrow keys go to the next cell that holds rows.
  table.addEventListener("keydown", function (event) {
    var step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !open) return;
    event.preventDefault(); event.stopPropagation();
    var i = +open.dataset.i + step[0], j = +open.dataset.j + step[1];
    while (cells[i] && cells[i][j] && !data.counts[i][j]) { i += step[0]; j += step[1]; }
    if (cells[i] && cells[i][j]) { choose(i, j); cells[i][j].focus(); }
  });
  // Begin with the largest cell that is no noise.
  var best = null;
  for (i = 0; i < cells.length; i++) for (j = 0; j < cells[i].length; j++) {
    var told = data.a.clusters[i] !== null && data.b.clusters[j] !== null && data.counts[i][j];
    if (told && (!best || data.counts[i][j] > data.counts[best[0]][best[1]])) best = [i, j];
  }
  if (best) choose(best[0], best[1]);
})();
