// A table of any length: only the rows in sight exist, and the server is asked for those.

import { element } from "./dom.js";

const ROW = 28; // pixels, as in style.css
const HEAD = 31;
const BLOCK = 100; // rows that are asked for at once
const BLOCKS_MAX = 40;
const HEIGHT_MAX = 30_000_000; // pixels: browsers lay out no more

export class Grid {
  // `columns`: {title, width, narrow, right, sort, cell(row)}. `rows(first, count, sort)` resolves to
  // {found, rows}; `answered(answer)` and `refused(error)` are called for the newest alone, as it is
  // drawn. `open(row)` is called for the chosen row, `marked(row)` for the active one, which is at
  // first the one at `active`.
  constructor({ label, columns, sort, rows, answered, refused, open, marked, sorted, active = 0 }) {
    Object.assign(this, { label, columns, sort, rows, answered, refused, open, marked, sorted, active });
    this.found = 0;
    this.wanted = active; // to be scrolled to once it is known how many there are
    this.blocks = new Map();
    this.asked = new Set();
    this.shown = new Map();
    this.version = 0;
    this.head = element("div", { role: "row", class: "row head", "aria-rowindex": 1 });
    this.space = element("div", { role: "rowgroup", class: "body" });
    this.node = element("div", {
      role: "grid", class: "grid", tabindex: 0, "aria-readonly": "true",
      "aria-label": `${label}: arrow keys move, Enter opens`,
      onscroll: () => this.draw(), onkeydown: (event) => this.key(event), onclick: (event) => this.click(event),
    }, element("div", { role: "rowgroup", class: "heads" }, this.head), this.space);
    this.body = this.node;
    this.node.style.setProperty("--columns", columns.map((column) => column.width).join(" "));
    this.node.style.setProperty("--narrow-columns", columns.filter((column) => column.narrow).map((column) => column.narrow).join(" "));
    this.drawHead();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.body);
  }

  drawHead() {
    const falling = this.sort?.startsWith("-");
    const name = this.sort?.replace("-", "");
    this.head.replaceChildren(...this.columns.map((column, index) => {
      const sorted = column.sort && column.sort === name;
      const title = column.sort
        ? element("button", { type: "button", onclick: () => this.resort(column.sort) }, `${column.title}${sorted ? (falling ? " ↓" : " ↑") : ""}`)
        : column.title;
      return element("div", {
        role: "columnheader", "aria-colindex": index + 1, class: this.classes(column),
        "aria-sort": sorted ? (falling ? "descending" : "ascending") : null,
      }, title);
    }));
  }

  classes(column) {
    return ["cell", column.right && "right", !column.narrow && "narrow-hidden"].filter(Boolean).join(" ");
  }

  resort(name) {
    this.sort = this.sort === `-${name}` ? name : `-${name}`;
    this.drawHead();
    this.body.scrollTop = 0;
    this.active = 0;
    this.sorted?.(this.sort);
    this.refresh();
  }

  // Ask anew; what is in sight stays until all of the new answer is there, and then goes at once.
  async refresh() {
    const version = (this.version += 1);
    const first = this.firstBlock();
    const wanted = [first, first + 1];
    this.asked = new Set(wanted);
    try {
      const answers = await Promise.all(wanted.map((block) => this.rows(block * BLOCK, BLOCK, this.sort)));
      if (version !== this.version) return;
      this.asked = new Set(wanted); // what else was answered meanwhile goes, too
      this.blocks.clear();
      wanted.forEach((block, index) => this.blocks.set(block, answers[index].rows));
      this.show(answers[0]);
    } catch (error) {
      if (version === this.version) this.fail(error);
    }
  }

  height() {
    return this.body.clientHeight - HEAD;
  }

  firstBlock() {
    return Math.floor(this.topRow() / BLOCK);
  }

  scale() {
    return Math.max(1, (this.found * ROW) / HEIGHT_MAX);
  }

  topRow() {
    const scale = this.scale();
    return scale === 1 ? Math.floor(this.body.scrollTop / ROW) : Math.floor((this.body.scrollTop * scale) / ROW);
  }

  async fetch(block) {
    if (block < 0 || this.asked.has(block) || block * BLOCK >= this.found) return;
    const version = this.version;
    this.asked.add(block);
    try {
      const answer = await this.rows(block * BLOCK, BLOCK, this.sort);
      if (version !== this.version) return;
      this.blocks.set(block, answer.rows);
      while (this.blocks.size > BLOCKS_MAX) {
        const oldest = this.blocks.keys().next().value;
        this.blocks.delete(oldest);
        this.asked.delete(oldest);
      }
      this.show(answer);
    } catch (error) {
      if (version !== this.version) return;
      this.asked.delete(block); // to be asked for again where one scrolls
      this.fail(error);
    }
  }

  show(answer) {
    this.found = answer.found;
    this.node.setAttribute("aria-rowcount", this.found + 1);
    this.space.style.height = `${Math.min(this.found * ROW, HEIGHT_MAX)}px`;
    this.failed = null;
    this.answered?.(answer);
    this.stale = true;
    if (this.wanted && this.found) {
      this.activate(this.wanted);
      this.wanted = 0;
    }
    this.draw();
  }

  fail(error) {
    this.failed = error.message;
    this.refused?.(error);
    this.sayNothing();
  }

  draw() {
    const top = this.topRow();
    const room = Math.ceil(this.height() / ROW) + 1;
    const last = Math.min(this.found, top + room + 2);
    const first = Math.max(0, top - 2);
    // Where not every row has its own pixels, rows are placed from the top of what is in sight.
    const base = this.scale() === 1 ? 0 : this.body.scrollTop - top * ROW;
    if (this.stale) for (const node of this.shown.values()) node.row = undefined;
    this.stale = false;
    const free = [];
    for (const [index, node] of this.shown) {
      if (index < first || index >= last) {
        this.shown.delete(index);
        free.push(node);
      }
    }
    for (let index = first; index < last; index += 1) {
      const row = this.blocks.get(Math.floor(index / BLOCK))?.[index % BLOCK];
      let node = this.shown.get(index);
      if (!node) {
        node = free.pop() ?? this.makeRow();
        this.shown.set(index, node);
        node.row = undefined;
      }
      node.style.transform = `translateY(${base + index * ROW}px)`;
      if (node.row !== row || node.index !== index) this.fillRow(node, index, row);
      node.setAttribute("aria-selected", index === this.active ? "true" : "false");
    }
    for (const node of free) node.remove();
    for (let block = Math.floor(first / BLOCK); block <= Math.floor(Math.max(first, last - 1) / BLOCK); block += 1) this.fetch(block);
    this.sayNothing();
  }

  sayNothing() {
    const text = (this.shown.size ? null : this.failed) ?? (this.found === 0 && this.version && this.blocks.size ? "Nothing matches." : "");
    if (!text === !this.nothing && this.nothing?.textContent === text) return;
    this.nothing?.remove();
    this.nothing = text ? element("div", { role: "row", class: "none" }, element("span", { role: "gridcell" }, text)) : null;
    if (this.nothing) this.space.append(this.nothing);
  }

  makeRow() {
    const node = element("div", { role: "row", class: "row" }, this.columns.map((column, index) =>
      element("div", { role: "gridcell", "aria-colindex": index + 1, class: this.classes(column) })));
    this.space.append(node);
    return node;
  }

  fillRow(node, index, row) {
    node.row = row;
    node.index = index;
    node.id = `${this.label.replaceAll(" ", "-")}-${index}`;
    node.setAttribute("aria-rowindex", index + 2);
    this.columns.forEach((column, place) => {
      const value = row ? column.cell(row) : place === 0 ? "…" : "";
      const cell = node.children[place];
      if (typeof value === "string") {
        cell.textContent = value;
        cell.title = value.length > 12 ? value : "";
      } else {
        cell.replaceChildren(value);
        cell.title = column.hint?.(row) ?? "";
      }
    });
  }

  row(index) {
    return this.blocks.get(Math.floor(index / BLOCK))?.[index % BLOCK];
  }

  activate(index, into = true) {
    this.active = Math.max(0, Math.min(this.found - 1, index));
    if (into) {
      const scale = this.scale();
      const at = (this.active * ROW) / scale;
      const height = this.height();
      if (at < this.body.scrollTop) this.body.scrollTop = at;
      else if (at + ROW > this.body.scrollTop + height) this.body.scrollTop = scale === 1 ? at + ROW - height : at;
    }
    this.draw();
    this.body.setAttribute("aria-activedescendant", `${this.label.replaceAll(" ", "-")}-${this.active}`);
    const row = this.row(this.active);
    if (row) this.marked?.(row);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.height() / ROW) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.found, End: this.found };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) this.activate(this.active + steps[event.key]);
    else if (event.key === "Enter" && event.target === this.node && this.row(this.active)) this.open?.(this.row(this.active));
    else return;
    event.preventDefault();
  }

  click(event) {
    const node = event.target.closest(".body .row");
    if (!node?.row) return;
    this.activate(node.index, false);
    this.open?.(node.row);
  }

  close() {
    this.observer.disconnect();
  }
}
