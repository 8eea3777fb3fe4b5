// Requests by time and duration. Dragging, or the keyboard, chooses a part of them.

import { clock, count, counted, drawn, duration, element } from "./dom.js";

const LEFT = 64; // pixels: the labels of durations
const RIGHT = 8;
const BOTTOM = 18; // the labels of times
const TALL = 112; // all rows together, about
const LEVELS = 7; // of colour
const DECADE = /^10*$/;

const bounded = (value, most) => Math.max(0, Math.min(most, value));

// A choice is {since, until, took_least, took_most}: nanoseconds, the last one included, null for any.
export const NOTHING = { since: null, until: null, took_least: null, took_most: null };
export const isChosen = (choice) => Object.values(choice).some((value) => value !== null);

export function choiceText(choice, origin_ms) {
  const { since, until, took_least, took_most } = choice;
  const times = since === null && until === null ? "" : `${since === null ? "" : clock(since, origin_ms)} to ${until === null ? "now" : clock(until + 1, origin_ms)}`;
  const took = took_least === null && took_most === null ? "" : took_most === null ? `${duration(took_least)} or longer` : `${duration(took_least ?? 0)} to ${duration(took_most + 1)}`;
  return [times, took].filter(Boolean).join(", ");
}

export class Heatmap {
  // `chosen(choice)` is called when somebody has chosen.
  constructor({ choice, origin_ms, chosen }) {
    Object.assign(this, { choice, origin_ms, chosen });
    this.answer = { began: [], took: [], cells: [], width: 1, unknown: 0 };
    this.picture = drawn("svg", { "aria-hidden": "true" });
    this.said = element("p", { class: "quiet chart-said", "aria-live": "polite" });
    this.node = element("div", {
      class: "plot heatmap", tabindex: 0, role: "group",
      "aria-label": "Requests by time and duration. Arrow keys move, with Shift they choose more, Enter filters, Escape shows all.",
      onkeydown: (event) => this.key(event),
      onpointermove: (event) => this.move(event), onpointerdown: (event) => this.down(event),
      onpointerup: (event) => this.up(event), onpointerleave: () => this.leave(),
    }, this.picture);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.node);
  }

  close() {
    this.observer.disconnect();
  }

  show(answer) {
    this.answer = answer;
    this.counts = new Map(answer.cells.map(([column, row, all, failed]) => [column * 1000 + row, { all, failed }]));
    this.draw();
  }

  get columns() {
    return this.answer.began.length;
  }

  get rows() {
    return Math.max(0, this.answer.took.length - 1);
  }

  x(column) {
    return LEFT + (column / Math.max(1, this.columns)) * this.room;
  }

  y(row) {
    return 4 + (this.rows - row) * this.step;
  }

  draw() {
    this.node.classList.toggle("empty", !this.rows);
    const wide = this.node.clientWidth;
    if (!this.rows || wide < 60) return;
    this.room = wide - LEFT - RIGHT;
    this.step = Math.max(3, Math.min(14, TALL / Math.max(1, this.rows)));
    this.bottom = this.y(0);
    const height = this.bottom + BOTTOM;
    this.range = drawn("rect", { class: "range", visibility: "hidden" });
    this.cursor = drawn("rect", { class: "ring", visibility: "hidden" });
    this.picture.setAttribute("viewBox", `0 0 ${wide} ${height}`);
    this.picture.setAttribute("height", height);
    this.picture.replaceChildren(...this.cells(), ...this.labels(), this.range, this.cursor);
    this.drawChoice();
    this.say(null);
  }

  // One path for each colour: there may be thousands of cells.
  cells() {
    const most = Math.log(1 + this.answer.cells.reduce((top, cell) => Math.max(top, cell[2]), 1));
    const paths = new Map();
    for (const [column, row, all, failed] of this.answer.cells) {
      const level = Math.max(1, Math.ceil((LEVELS * Math.log(1 + all)) / most));
      const key = `${failed ? "cell failed" : "cell"} ${level}`;
      const left = this.x(column);
      const width = Math.max(1, this.x(column + 1) - left - 0.5);
      const box = `M${left.toFixed(1)} ${(this.y(row + 1) + 0.5).toFixed(1)}h${width.toFixed(1)}v${(this.step - 0.5).toFixed(1)}h${(-width).toFixed(1)}z`;
      paths.set(key, (paths.get(key) ?? "") + box);
    }
    return [...paths].map(([key, path]) => {
      const [, name, level] = /^(.*) (\d+)$/.exec(key);
      return drawn("path", { class: name, d: path, "fill-opacity": 0.15 + (0.85 * level) / LEVELS });
    });
  }

  labels() {
    const { took, began, width } = this.answer;
    const marks = [drawn("line", { class: "lane", x1: LEFT, x2: LEFT + this.room, y1: this.bottom, y2: this.bottom })];
    const few = took.filter((limit) => DECADE.test(String(limit))).length < 2;
    let above = Infinity;
    took.forEach((limit, row) => {
      const at = this.y(row);
      if ((!few && !DECADE.test(String(limit))) || above - at < 13) return;
      above = at;
      marks.push(drawn("line", { class: "tick", x1: LEFT - 4, x2: LEFT + this.room, y1: at, y2: at }));
      marks.push(drawn("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" }, duration(limit)));
    });
    const every = Math.max(1, Math.ceil(this.columns / Math.max(1, Math.floor(this.room / 110))));
    for (let column = 0; column < this.columns; column += every) {
      const last = this.x(column) > LEFT + this.room - 70;
      if (last && column) break;
      marks.push(drawn("text", { x: this.x(column), y: this.bottom + 14 }, clock(began[column], this.origin_ms, width < 1e6 ? 6 : 3)));
    }
    return marks;
  }

  // The rectangle of what is chosen, also where its limits are not those of cells.
  drawChoice() {
    if (!isChosen(this.choice) || !this.rows) {
      this.range.setAttribute("visibility", "hidden");
      return;
    }
    const { since, until, took_least, took_most } = this.choice;
    const { began, width, took } = this.answer;
    const column = (moment) => bounded((moment - began[0]) / width, this.columns);
    const row = (time) => {
      const at = took.findIndex((limit) => limit >= time);
      if (at <= 0) return at < 0 ? this.rows : 0;
      return at - 1 + (time - took[at - 1]) / (took[at] - took[at - 1] || 1);
    };
    this.frame(
      since === null ? 0 : column(since), until === null ? this.columns : column(until + 1),
      took_least === null ? 0 : row(took_least), took_most === null ? this.rows : row(took_most + 1));
  }

  frame(left, right, low, high) {
    const box = { x: this.x(left), y: this.y(high), width: Math.max(1, this.x(right) - this.x(left)), height: Math.max(1, this.y(low) - this.y(high)) };
    for (const [name, value] of Object.entries(box)) this.range.setAttribute(name, value);
    this.range.setAttribute("visibility", "visible");
  }

  // Where a pointer is, as a cell; left of the cells all times are meant, below them all durations.
  at(event) {
    const box = this.node.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return {
      column: bounded(Math.floor(((x - LEFT) / this.room) * this.columns), this.columns - 1),
      row: bounded(Math.floor((this.bottom - y) / this.step), this.rows - 1),
      times: x < LEFT - 2, durations: y > this.bottom + 2,
    };
  }

  between(one, other) {
    const { began, width, took } = this.answer;
    const [left, right] = [Math.min(one.column, other.column), Math.max(one.column, other.column)];
    const [low, high] = [Math.min(one.row, other.row), Math.max(one.row, other.row)];
    return {
      ...(one.times ? { since: null, until: null } : { since: began[left], until: began[right] + width - 1 }),
      ...(one.durations ? { took_least: null, took_most: null } : { took_least: took[low], took_most: took[high + 1] - 1 }),
    };
  }

  choose(choice) {
    this.choice = choice;
    this.drawChoice();
    this.chosen(choice);
  }

  down(event) {
    if (event.button === 0 && this.rows) this.from = this.at(event);
  }

  move(event) {
    if (!this.rows) return;
    const to = this.at(event);
    this.say(to);
    if (!this.from) return;
    this.choice = this.between(this.from, to);
    this.drawChoice();
  }

  up(event) {
    if (this.from) this.choose(this.between(this.from, this.at(event)));
    this.from = null;
  }

  leave() {
    if (this.from) this.chosen(this.choice);
    this.from = null;
    this.say(null);
  }

  say(cell) {
    const { began, took, cells, unknown, width } = this.answer;
    if (!cell || cell.times || cell.durations) {
      const all = cells.reduce((sum, one) => sum + one[2], 0);
      const failed = cells.reduce((sum, one) => sum + one[3], 0);
      this.said.textContent = !all ? "" : [
        counted(all, "request"), failed ? `red: ${count(failed)} failed` : "", unknown ? `${count(unknown)} of unknown duration are not shown` : "",
      ].filter(Boolean).join(", ");
      return;
    }
    const found = this.counts?.get(cell.column * 1000 + cell.row);
    const when = `${clock(began[cell.column], this.origin_ms, width < 1e6 ? 6 : 3)}, ${duration(took[cell.row])} to ${duration(took[cell.row + 1])}`;
    this.said.textContent = `${when}: ${found ? counted(found.all, "request") : "none"}${found?.failed ? `, ${count(found.failed)} failed` : ""}`;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.rows) return;
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (step) {
      const now = this.place ?? { column: this.columns, row: this.rows - 1 };
      this.place = { column: bounded(now.column + step[0], this.columns - 1), row: bounded(now.row + step[1], this.rows - 1) };
      if (!event.shiftKey || !this.anchor) this.anchor = this.place;
      const corner = { column: Math.min(this.place.column, this.anchor.column), row: Math.min(this.place.row, this.anchor.row) };
      const far = { column: Math.max(this.place.column, this.anchor.column), row: Math.max(this.place.row, this.anchor.row) };
      const box = { x: this.x(corner.column), y: this.y(far.row + 1), width: this.x(far.column + 1) - this.x(corner.column), height: this.y(corner.row) - this.y(far.row + 1) };
      for (const [name, value] of Object.entries(box)) this.cursor.setAttribute(name, value);
      this.cursor.setAttribute("visibility", "visible");
      this.say(this.place);
    } else if (event.key === "Enter" && this.place) this.choose(this.between(this.anchor, this.place));
    else if (event.key === "Escape" && isChosen(this.choice)) this.choose(NOTHING);
    else return;
    event.preventDefault();
  }
}
