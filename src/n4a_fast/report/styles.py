"""The look of pages, and the little script that sorts and filters their tables."""

STYLE = """
:root{color-scheme:light dark;--line:#bbb;--soft:#f3f5f8;--ink:#1b1f24;--paper:#fff;--mark:#2f5f96}
@media (prefers-color-scheme:dark){:root{--line:#555;--soft:#23272e;--ink:#e6e6e6;--paper:#16181c;--mark:#8ab4e8}}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
main,footer{max-width:1100px;margin:0 auto;padding:0 16px}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.2rem;border-bottom:1px solid var(--line);margin-top:2rem}
h3{font-size:1rem}h2,h3,p,li,dt,dd,summary,figcaption,pre{overflow-wrap:anywhere}
.wide{overflow-x:auto;max-width:100%}.wide:has(.board){max-height:34rem;overflow:auto}
.board thead th{position:sticky;top:0;background:var(--paper)}
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-size:.85rem;padding:2px 0}
th,td{padding:3px 9px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;max-width:24rem}
th,td{overflow-wrap:break-word}
.board th,.board td{max-width:19rem;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
td.n,th.n{text-align:right;white-space:nowrap}.runs td{white-space:nowrap}
th button{all:unset;cursor:pointer;font-weight:600}th button:focus-visible{outline:2px solid var(--mark)}
th[aria-sort] button,a{color:var(--mark)}
progress{width:100%;max-width:30rem}#now p,#now ul{margin:.3rem 0}
tbody tr:nth-child(even){background:var(--soft)}
figure{margin:1rem 0;min-width:16rem;max-width:100%;display:inline-block;vertical-align:top}
figure svg{max-width:100%;height:auto;display:block;overflow:visible}figcaption{font-size:.85rem}
figcaption,figure details{width:0;min-width:100%}
.charts{display:flex;flex-wrap:wrap;gap:8px 32px}.charts figure{max-width:100%}
.verdict{font-size:1.05rem}.rule,.note,footer{font-size:.85rem}
code,pre{font-family:ui-monospace,monospace;font-size:.85rem}pre{background:var(--soft);padding:8px;white-space:pre-wrap}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px}dd{margin:0}
input.filter{font:inherit;padding:3px 6px;margin:4px 0;max-width:100%}
footer{padding:24px 16px}
@media (max-width:600px){th,td{padding:3px 6px}.board td:nth-child(3){max-width:9rem}
dl{grid-template-columns:1fr}dt{font-weight:600}}
@media print{.filter,footer{display:none}.wide,.wide:has(.board){overflow:visible;max-height:none}
figure,tr{break-inside:avoid}}
"""

SCRIPT = """
"use strict";
const ready = (part) => { for (const table of part.querySelectorAll("table.board")) {
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
} };
ready(document);
"""

# What a live page does beside that: it is told of news, fetches its sections anew, and keeps what its reader has set.
LIVE_SCRIPT = """
const now = document.getElementById("now"), state = document.getElementById("state");
const content = document.getElementById("content");
let shown = content.dataset.number, news = null;
const all = (what) => Array.from(content.querySelectorAll(what));
const linked = () => { for (const code of all("table.board code[title]")) {
  const link = document.createElement("a");
  link.href = "chain/" + encodeURIComponent(code.title);
  code.replaceWith(link);
  link.append(code);
} };
const sorted = (table) => Array.from(table.tHead.rows[0].cells, (head) => head.getAttribute("aria-sort"));
const replaced = (html) => {
  const open = all("details").map((each) => each.open), filters = all("input.filter").map((each) => each.value);
  const sorts = all("table.board").map(sorted), focus = all("input.filter").indexOf(document.activeElement);
  content.innerHTML = html;
  ready(content);
  linked();
  all("details").forEach((each, place) => { each.open = Boolean(open[place]); });
  all("table.board").forEach((table, place) => (sorts[place] || []).forEach((way, column) => {
    const button = table.tHead.rows[0].cells[column].querySelector("button");
    for (let n = 0; n < (way === "descending" ? 2 : way ? 1 : 0); n++) button.click();
  }));
  all("input.filter").forEach((box, place) => {
    box.value = filters[place] || "";
    box.dispatchEvent(new Event("input"));
    if (place === focus) box.focus();
  });
};
const listen = () => {
  news = new EventSource("events");
  news.onerror = () => { state.textContent = "no answer from n4a-fast ui; this is what it told last"; };
  news.onmessage = async (message) => {
    const told = JSON.parse(message.data);
    now.innerHTML = told.now;
    state.textContent = told.state;
    if (told.number === shown) return;
    shown = told.number;
    const answer = await fetch("sections");
    if (answer.ok) replaced(await answer.text());
  };
};
linked();
listen();
// a page that nobody sees asks for nothing
document.addEventListener("visibilitychange", () => { news.close(); if (!document.hidden) listen(); });
"""
