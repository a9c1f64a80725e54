"use strict";
/* Sorts and filters a table, and the marks of charts that show its rows; without it both are read as they are. */
const number = (text) => (/^[-+]?[\d.]/.test(text) ? parseFloat(text.replace(/,/g, "")) : NaN);
/* Numbers by size, then texts, then what is empty, whichever way round. */
function order(a, b, down) {
  if (!a || !b) return !a - !b;
  const [x, y] = [number(a), number(b)];
  if (isNaN(x) !== isNaN(y)) return isNaN(x) - isNaN(y);
  const sign = isNaN(x) ? a.localeCompare(b) : x - y;
  return down ? -sign : sign;
}
function enhance(table) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells], chosen = new Map();
  const texts = new Map(rows.map((row) => [row, Array.from(row.cells, (cell) => cell.textContent.trim())]));
  const section = table.closest("section"), count = document.createElement("output"), filters = document.createElement("p");
  function show() {
    for (const row of rows) row.hidden = [...chosen].some(([at, text]) => text && texts.get(row)[at] !== text);
    for (const mark of section.querySelectorAll("[data-row]"))
      mark.style.display = rows[mark.dataset.row].hidden ? "none" : "";
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
  }
  heads.forEach((head, at) => {
    const button = document.createElement("button"), name = head.textContent.trim();
    button.append(name);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...[...rows].sort((a, b) => order(texts.get(a)[at], texts.get(b)[at], down)));
    });
    if (!head.classList.contains("filter")) return;
    const label = document.createElement("label"), select = document.createElement("select");
    const values = [...new Set(rows.map((row) => texts.get(row)[at]))].filter(Boolean).sort(order);
    select.append(new Option("all", ""), ...values.map((text) => new Option(text)));
    select.addEventListener("change", () => { chosen.set(at, select.value); show(); });
    label.append(`${name} `, select);
    filters.append(label);
  });
  filters.className = "filters";
  filters.append(count);
  section.querySelector(".charts").before(filters);
  show();
}
document.querySelectorAll("table.sortable").forEach(enhance);
