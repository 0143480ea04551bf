"""The look of pages, and the little script that sorts and filters their tables."""

STYLE = """
:root{color-scheme:light dark;--line:#bbb;--soft:#f3f5f8;--ink:#1b1f24;--paper:#fff;--mark:#2f5f96}
@media (prefers-color-scheme:dark){:root{--line:#555;--soft:#23272e;--ink:#e6e6e6;--paper:#16181c;--mark:#8ab4e8}}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
main,footer{max-width:1100px;margin:0 auto;padding:0 16px}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.2rem;border-bottom:1px solid var(--line);margin-top:2rem}
h3{font-size:1rem}p,li,dd,figcaption,pre{overflow-wrap:anywhere}
.wide{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-size:.85rem;padding:2px 0}
th,td{padding:3px 9px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;max-width:24rem}
th,td{overflow-wrap:break-word}
.board th,.board td{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
td.n{text-align:right;white-space:nowrap}
th button{all:unset;cursor:pointer;font-weight:600}th button:focus-visible{outline:2px solid var(--mark)}
th[aria-sort] button{color:var(--mark)}
tbody tr:nth-child(even){background:var(--soft)}
figure{margin:1rem 0;max-width:100%;display:inline-block;vertical-align:top}
figure svg{max-width:100%;height:auto;display:block;overflow:visible}figcaption{font-size:.85rem;max-width:44rem}
.charts{display:flex;flex-wrap:wrap;gap:8px 32px}.charts figure{max-width:100%;min-width:0}
.verdict{font-size:1.05rem}.rule,.note,footer{font-size:.85rem}
code,pre{font-family:ui-monospace,monospace;font-size:.85rem}pre{background:var(--soft);padding:8px;white-space:pre-wrap}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px}dd{margin:0}
input.filter{font:inherit;padding:3px 6px;margin:4px 0;max-width:100%}
footer{padding:24px 16px}
@media (max-width:600px){dl{grid-template-columns:1fr}dt{font-weight:600}}
@media print{.filter,footer{display:none}.wide{overflow:visible}figure,tr{break-inside:avoid}}
"""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.board")) {
  const body = table.tBodies[0], rows = Array.from(body.rows);
  const value = (row, place) => {
    const cell = row.cells[place], given = cell.dataset.value;
    return given === undefined ? cell.textContent : Number(given);
  };
  const last = (a) => a === "" || a === "-";
  const order = (a, b) => last(a) || last(b) ? last(a) - last(b)
    : typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  Array.from(table.tHead.rows[0].cells).forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => (down ? -1 : 1) * order(value(a, place), value(b, place)));
      body.append(...rows);
    });
  });
  const box = document.createElement("input");
  box.type = "search";
  box.className = "filter";
  box.placeholder = "filter rows";
  box.setAttribute("aria-label", "filter the rows of the leaderboard");
  box.addEventListener("input", () => {
    const wanted = box.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  table.closest(".wide").before(box);
}
"""
