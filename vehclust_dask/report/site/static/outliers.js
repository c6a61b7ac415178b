"use strict";
// How many rows reach a threshold, and which: tables of values and counts come with the page.
var Thresholds = (function () {
  function bytes(text) {
    var raw = atob(text), found = new Uint8Array(raw.length), i;
    for (i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
    return found.buffer;
  }

  function Thresholds(score) {
    this.values = new Float64Array(bytes(score.values));
    this.counts = score.counts === null ? null : new Uint32Array(bytes(score.counts));
    this.complete = score.complete;
    this.known = this.values.length ? this.count(this.values.length - 1) : 0;
  }

  Thresholds.prototype.count = function (at) { return this.counts ? this.counts[at] : at + 1; };

  // Return how many of the values are no smaller than the threshold.
  Thresholds.prototype.place = function (threshold) {
    var low = 0, high = this.values.length, middle;
    while (low < high) {
      middle = (low + high) >> 1;
      if (this.values[middle] >= threshold) low = middle + 1; else high = middle;
    }
    return low;
  };

  // Return the fewest and the most rows that reach a threshold: equal where the count is exact.
  Thresholds.prototype.beyond = function (threshold) {
    var at = this.place(threshold), fewest = at ? this.count(at - 1) : 0;
    var met = at > 0 && this.values[at - 1] === threshold;
    if (met || at < this.complete || at === this.values.length) return [fewest, fewest];
    return [fewest, this.count(at) - 1];
  };

  // Return a threshold that so many rows reach, or a few more where values are equal: the shortest number.
  Thresholds.prototype.at = function (n) {
    if (n < 1) return this.above();
    var low = 0, high = this.values.length - 1, middle;
    while (low < high) {
      middle = (low + high) >> 1;
      if (this.count(middle) >= n) high = middle; else low = middle + 1;
    }
    var value = this.values[low];
    var next = low + 1 < this.complete ? this.values[low + 1] : low + 1 < this.values.length ? value : -Infinity;
    return shortest(value, next);
  };

  Thresholds.prototype.above = function () {
    var top = this.values[0], digits, found;
    for (digits = 2; digits < 17; digits++) {
      found = Number((top + Math.abs(top || 1) * 0.01).toPrecision(digits));
      if (found > top) return found;
    }
    return top + Math.abs(top || 1);
  };

  // Return the number of fewest digits that is at most the value and above the next smaller one.
  function shortest(value, next) {
    for (var digits = 2; digits < 17; digits++) {
      var near = Number(value.toPrecision(digits));
      if (near <= value && near > next) return near;
      var step = Math.pow(10, Math.floor(Math.log10(Math.abs(value) || 1)) - digits + 1);
      near = Number((value - step / 2).toPrecision(digits));
      if (near <= value && near > next) return near;
    }
    return value;
  }

  return Thresholds;
})();

var Download = {
  // Quote what a table needs quoted; a leading sign that a spreadsheet would compute is left as it is.
  field: function (value) {
    var text = String(value);
    return /[",\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
  },
  table: function (rows) {
    return rows.map(function (row) { return row.map(Download.field).join(","); }).join("\n") + "\n";
  },
  save: function (name, text) {
    var link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name;
    document.body.appendChild(link);
    link.click();
    link.remove();
  },
  copy: function (text, done) {
    function old() {
      var box = document.createElement("textarea");
      box.value = text; document.body.appendChild(box); box.select();
      document.execCommand("copy"); box.remove(); done();
    }
    if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(done, old);
    else old();
  }
};

(function () {
  if (typeof document === "undefined" || !window.OUTLIERS) return;
  var book = window.OUTLIERS, language = book.language;

  function say(key, values) {
    return book.words["outliers.js." + key].replace(/\{(\w+)\}/g, function (_, name) { return values[name]; });
  }
  function shown(n) { return n.toLocaleString(language); }

  function score(section) {
    var about = book.scores[+section.dataset.at], table = new Thresholds(about), threshold;
    var slider = section.querySelector("input[type=range]"), box = section.querySelector("input[type=number]");
    var output = section.querySelector("output"), said = section.querySelector(".said");
    var tiles = section.querySelectorAll("[data-value]");
    if (!slider) return;

    function rank(position) { return position ? Math.round(Math.pow(table.known, position / 1000)) : 0; }
    function position(n) { return n < 1 ? 0 : table.known < 2 ? 1000 : Math.max(1, Math.round(1000 * Math.log(n) / Math.log(table.known))); }
    function show() {
      var found = table.beyond(threshold), exact = found[0] === found[1];
      output.textContent = exact
        ? say("beyond", { n: shown(found[0]), share: (100 * found[0] / book.all).toLocaleString(language, { maximumSignificantDigits: 3 }) })
        : say("between", { a: shown(found[0]), b: shown(found[1]) });
      output.dataset.fewest = found[0]; output.dataset.most = found[1];
      Array.prototype.forEach.call(tiles, function (tile) {
        tile.classList.toggle("out", parseFloat(tile.dataset.value) >= threshold);
      });
      said.textContent = "";
    }
    function take(value, mover) {
      threshold = value;
      if (mover !== box) box.value = String(value);
      if (mover !== slider) slider.value = position(table.beyond(value)[0]);
      slider.setAttribute("aria-valuetext", String(value));
      show();
    }
    function listed() {
      var values = about.top_values || (about.top_values = new Thresholds({ values: about.top, counts: null, complete: 0 }).values);
      var n = 0;
      while (n < values.length && values[n] >= threshold) n++;
      return about.rows.slice(0, n).map(function (row, at) { return { rank: at + 1, row: row, value: values[at] }; });
    }
    function path(row) { return row in book.paths ? book.paths[row] : ""; }
    function tell(key, n) {
      var all = table.beyond(threshold)[0];
      said.textContent = say(key, { n: shown(n) }) + (n < all ? " " + say("more", { n: shown(n), all: shown(all), table: book.table }) : "");
    }

    slider.addEventListener("input", function () { take(table.at(rank(+slider.value)), slider); });
    box.addEventListener("input", function () { if (box.value !== "" && isFinite(+box.value)) take(+box.value, box); });
    section.querySelector(".copy").addEventListener("click", function () {
      var rows = listed();
      Download.copy(rows.map(function (one) { return path(one.row) || one.row; }).join("\n") + "\n", function () { tell("copied", rows.length); });
    });
    section.querySelector(".csv").addEventListener("click", function () {
      var rows = listed();
      var lines = rows.map(function (one) { return [one.rank, one.row, path(one.row), one.value]; });
      Download.save(about.score + ".csv", Download.table([["rank", "row", "path", about.score]].concat(lines)));
      tell("saved", rows.length);
    });
    section.querySelector(".rule").addEventListener("click", function () {
      Download.copy("outliers: {rules: {" + about.score + ": " + String(threshold) + "}}\n", function () { said.textContent = say("rule", { rule: about.score + ": " + threshold }); });
    });
    var to = section.querySelector(".to-rule");
    if (to) to.addEventListener("click", function () { take(+to.dataset.rule); });
    take(about.rule !== null ? about.rule : table.at(Math.ceil(table.known / 100)));
  }

  document.querySelectorAll("section.score").forEach(score);
})();

if (typeof module !== "undefined") module.exports = { Thresholds: Thresholds, Download: Download };
