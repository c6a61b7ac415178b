"use strict";
(function () {
  function sortable(table) {
    var heads = table.tHead.rows[0].cells;
    function value(row, at) {
      var cell = row.cells[at], raw = cell.getAttribute("data-value");
      var number = parseFloat(raw === null ? cell.textContent : raw);
      return raw !== null ? (isNaN(number) ? -Infinity : number) : cell.textContent;
    }
    function sort(at) {
      var up = heads[at].getAttribute("aria-sort") !== "ascending";
      Array.prototype.forEach.call(heads, function (head) { head.removeAttribute("aria-sort"); });
      heads[at].setAttribute("aria-sort", up ? "ascending" : "descending");
      var body = table.tBodies[0], rows = Array.prototype.slice.call(body.rows);
      rows.sort(function (a, b) {
        var x = value(a, at), y = value(b, at);
        return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
      });
      rows.forEach(function (row) { body.appendChild(row); });
    }
    Array.prototype.forEach.call(heads, function (head, at) {
      head.tabIndex = 0;
      head.addEventListener("click", function () { sort(at); });
      head.addEventListener("keydown", function (event) {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(at); }
      });
    });
  }

  function keys() {
    document.addEventListener("keydown", function (event) {
      if (event.altKey || event.ctrlKey || event.metaKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
      var rel = event.key === "ArrowLeft" ? "prev" : event.key === "ArrowRight" ? "next" : null;
      var link = rel && document.querySelector("a[rel=" + rel + "]");
      if (link) location.href = link.href;
    });
  }

  function element(name, facts) {
    var made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.keys(facts).forEach(function (key) { made.setAttribute(key, facts[key]); });
    return made;
  }

  // Columns of bars, one per number of clusters; bands say how many rows go from which to which.
  function flow(box) {
    (window.FLOW || []).forEach(function (sweep) {
      var title = document.createElement("h3");
      title.textContent = sweep.name;
      box.appendChild(title);
      var height = 420, step = 110, bar = 14, gap = 2, left = 30, top = 22;
      var total = Math.max.apply(null, sweep.sizes.map(function (s) { return s.reduce(function (a, b) { return a + b; }, 0); }));
      var most = Math.max.apply(null, sweep.ks);
      var scale = (height - gap * most) / total;
      var width = left * 2 + step * (sweep.ks.length - 1) + bar;
      var svg = element("svg", { width: width, height: height + top + 6, role: "img" });
      // Clusters stand where most of their rows came from, so that bands cross little.
      var orders = [], tops = [];
      sweep.ks.forEach(function (k, at) {
        var place = [], i;
        for (i = 0; i < k; i++) place.push(i);
        if (at > 0) {
          var sums = new Array(k).fill(0), weights = new Array(k).fill(0);
          sweep.flows[at - 1].forEach(function (f) {
            sums[f[1]] += f[2] * tops[at - 1][f[0]]; weights[f[1]] += f[2];
          });
          place.sort(function (a, b) {
            return sums[a] / (weights[a] || 1) - sums[b] / (weights[b] || 1) || a - b;
          });
        }
        var y = top, found = new Array(k);
        place.forEach(function (c) { found[c] = y; y += sweep.sizes[at][c] * scale + gap; });
        orders.push(place); tops.push(found);
      });
      sweep.flows.forEach(function (flows, at) {
        var out = tops[at].slice(), into = tops[at + 1].slice();
        flows.slice().sort(function (a, b) {
          return tops[at][a[0]] - tops[at][b[0]] || tops[at + 1][a[1]] - tops[at + 1][b[1]];
        }).forEach(function (f) {
          var h = f[2] * scale, x = left + step * at + bar, to = left + step * (at + 1), middle = (x + to) / 2;
          var y = out[f[0]], z = into[f[1]];
          out[f[0]] += h; into[f[1]] += h;
          if (h < 0.3) return;
          var path = "M" + x + " " + y + "C" + middle + " " + y + " " + middle + " " + z + " " + to + " " + z +
            "v" + h + "C" + middle + " " + (z + h) + " " + middle + " " + (y + h) + " " + x + " " + (y + h) + "z";
          var band = element("path", { d: path, "class": "band" });
          var words = element("title", {});
          words.textContent = "k=" + sweep.ks[at] + " " + box.dataset.cluster + " " + f[0] + " → k=" + sweep.ks[at + 1] + " " +
            box.dataset.cluster + " " + f[1] + ": " + f[2].toLocaleString() + " " + box.dataset.rows;
          band.appendChild(words); svg.appendChild(band);
        });
      });
      sweep.ks.forEach(function (k, at) {
        var label = element("text", { x: left + step * at, y: 13 });
        label.textContent = "k = " + k;
        svg.appendChild(label);
        orders[at].forEach(function (c) {
          var h = sweep.sizes[at][c] * scale;
          var node = element("rect", { x: left + step * at, y: tops[at][c], width: bar, height: Math.max(h, 0.5), "class": "node" });
          var words = element("title", {});
          words.textContent = "k=" + k + " " + box.dataset.cluster + " " + c + ": " + sweep.sizes[at][c].toLocaleString() + " " + box.dataset.rows;
          node.appendChild(words); svg.appendChild(node);
          if (h > 11) {
            var name = element("text", { x: left + step * at - 5, y: tops[at][c] + h / 2 + 4, "text-anchor": "end" });
            name.textContent = c;
            svg.appendChild(name);
          }
        });
      });
      box.appendChild(svg);
    });
    if (!(window.FLOW || []).length) box.textContent = box.dataset.none;
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("table.sortable").forEach(sortable);
    keys();
    var box = document.getElementById("flow");
    if (box) flow(box);
  });
})();
