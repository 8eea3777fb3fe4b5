// The time axis of a connection: what each end did, one lane each, and a sentence for every mark.

import { clock, drawn, duration, element, PARTS, partName, size } from "./dom.js";

const LABELS = 132; // pixels, left of the lanes
const RIGHT = 14;
const NEAR = 12; // pixels

const CALLS = ["send", "recv", "tls_send", "tls_recv"];
const STATES = ["connect", "accept", "close", "reset", "state"];

// The lanes from top to bottom: what they show, of which end.
const LANES = [
  { name: "calls", side: 0, label: "reads, writes" },
  { name: "segments", side: 0, label: "segments" },
  { name: "segments", side: 1, label: "segments" },
  { name: "calls", side: 1, label: "reads, writes" },
  { name: "states", side: null, label: "connection" },
];

const laneOf = (mark) => (CALLS.includes(mark.kind) ? "calls" : STATES.includes(mark.kind) ? "states" : "segments");

export class Axis {
  // `zoom(since, until)` asks for another stretch of time, null for the whole. `openRequest(n)`.
  constructor({ answer, request, origin_ms, zoom, openRequest, chosen }) {
    Object.assign(this, { answer, request, origin_ms, zoom, openRequest, chosen });
    this.active = -1;
    this.picture = drawn("svg", { "aria-hidden": "true" });
    this.node = element("div", {
      class: "axis", tabindex: 0, role: "group",
      "aria-label": "Time axis. Left and right arrow go from mark to mark, plus and minus zoom, 0 shows all.",
      onkeydown: (event) => this.key(event),
      onpointermove: (event) => this.move(event), onpointerdown: (event) => this.down(event),
      onpointerup: (event) => this.up(event), onpointerleave: () => this.leave(),
      ondblclick: () => this.zoom(null, null),
    }, this.picture);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.node);
  }

  close() {
    this.observer.disconnect();
  }

  x(moment) {
    const { since, until } = this.answer;
    return LABELS + ((moment - since) / Math.max(1, until - since)) * this.room;
  }

  moment(x) {
    const { since, until } = this.answer;
    return Math.round(since + ((x - LABELS) / this.room) * (until - since));
  }

  draw() {
    const width = this.node.clientWidth;
    if (width < 60) return;
    this.width = width;
    this.room = Math.max(40, width - LABELS - RIGHT);
    this.parts = [];
    this.places = [];
    this.levels = [];
    let y = 8;
    y = this.drawRequests(y);
    y = this.drawLanes(y);
    y = this.drawCurve("srtt_us", "round trip", (value) => duration(value * 1000), y);
    y = this.drawCurve("cwnd", "congestion window", (value) => `${value} segments`, y);
    y = this.drawCurve("window", "window offered", size, y);
    const ticks = this.drawTicks(y);
    this.cursor = drawn("line", { class: "cursor", y1: 0, y2: y, visibility: "hidden" });
    this.rangeBox = drawn("rect", { class: "range", y: 0, height: y, visibility: "hidden" });
    this.ring = drawn("circle", { class: "ring", r: 8, visibility: "hidden" });
    const height = y + 22;
    this.picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.picture.setAttribute("height", height);
    this.picture.replaceChildren(...ticks, ...this.parts, this.rangeBox, this.cursor, this.ring);
    if (this.active >= 0) this.pointAt(this.active);
  }

  add(tag, attributes, ...children) {
    this.parts.push(drawn(tag, attributes, ...children));
  }

  label(text, y, className = null) {
    const room = Math.floor((LABELS - 16) / 5.9);
    this.add("text", { x: 8, y, class: className }, text.length > room ? `${text.slice(0, room - 1)}…` : text);
  }

  clip(x) {
    return Math.max(LABELS, Math.min(LABELS + this.room, x));
  }

  drawRequests(y) {
    const { requests } = this.answer;
    if (!requests.length) return y;
    this.label("requests", y + 12);
    const ends = [];
    let rows = 1;
    for (const request of [...requests].sort((a, b) => a.start - b.start)) {
      const from = this.clip(this.x(request.start));
      const to = Math.max(from + 2, this.clip(this.x(Math.max(request.end, request.start))));
      let row = ends.findIndex((end) => end <= from);
      if (row < 0) row = ends.length < 8 ? ends.length : 7;
      ends[row] = to + 1;
      rows = Math.max(rows, row + 1);
      const top = y + row * 18;
      const bar = drawn("rect", { class: `request${request.failed ? " failed" : ""}`, x: from, y: top, width: to - from, height: 15, rx: 2 });
      bar.addEventListener("click", () => this.openRequest(request.n));
      this.parts.push(bar);
      const text = `${request.what} ${request.status ?? ""}`;
      const room = Math.floor((to - from - 8) / 6);
      if (room > 5) this.add("text", { x: from + 4, y: top + 11.5, class: "request-text" }, text.length > room ? `${text.slice(0, room - 1)}…` : text);
    }
    return y + rows * 18 + 8;
  }

  drawLanes(y) {
    const { marks, connection } = this.answer;
    const most = marks.reduce((top, mark) => Math.max(top, mark.bytes), 1);
    const highest = Math.log(most + 1);
    for (const lane of LANES) {
      if (lane.side !== null && lane.name === (lane.side === 0 ? "calls" : "segments")) {
        const owner = connection.owners[lane.side];
        this.label(`${lane.side ? "server" : "client"} ${owner === "-" ? "" : owner}`, y + 10, "quiet");
        y += 14;
      }
      const height = lane.name === "states" ? 24 : 34;
      const base = y + height - 6;
      this.label(`  ${lane.label}`, base - 4);
      this.add("line", { class: "lane", x1: LABELS, x2: LABELS + this.room, y1: base, y2: base });
      let labelled = -Infinity;
      marks.forEach((mark, index) => {
        if (laneOf(mark) !== lane.name || (lane.side !== null && mark.side !== lane.side)) return;
        const at = this.x(mark.t);
        if (at < LABELS - 1 || at > LABELS + this.room + 1) return;
        const tall = 5 + (height - 14) * (Math.log(mark.bytes + 1) / highest);
        const dim = this.request && !mark.own && lane.name !== "states" ? " other" : "";
        const className = `${mark.kind}${dim}`;
        let middle = base - tall / 2;
        if (lane.name === "calls") {
          const from = this.clip(this.x(mark.t - (mark.took ?? 0)));
          this.add("rect", { class: className, x: from, y: base - tall, width: Math.max(2, at - from), height: tall });
        } else if (mark.kind === "acked") {
          middle = base + 2;
          this.add("circle", { class: className, cx: at, cy: middle, r: 2.2 });
        } else if (mark.kind === "drop") {
          middle = base - 8;
          this.add("path", { class: className, d: `M${at - 4} ${middle - 4}l4 3 4-3-3 4 3 4-4-3-4 3 3-4z` });
        } else if (lane.name === "states") {
          middle = base - 6;
          this.add("path", { class: className, d: `M${at} ${middle - 5}l4 5-4 5-4-5z` });
        } else {
          const again = mark.kind === "retransmit";
          const wide = again ? 3 : 1.6;
          this.add("rect", { class: className, x: at - wide / 2, y: base - (again ? Math.max(tall, 14) : tall), width: wide, height: again ? Math.max(tall, 14) : tall });
          if (again && at - labelled > 34) {
            labelled = at;
            this.add("text", { x: at + 4, y: base - 14, class: "cause" }, mark.cause ?? "");
          }
        }
        this.places.push({ index, x: at, y: middle });
      });
      y += height;
    }
    return y + 4;
  }

  drawCurve(name, label, text, y) {
    const sides = this.answer.curves[name];
    const most = Math.max(0, ...sides.flat().map((point) => point[1]));
    if (!most) return y;
    const height = 40;
    this.label(label, y + 12);
    this.label(`up to ${text(most)}`, y + 26);
    this.levels.push({ node: this.parts.at(-1), sides, text, most: `up to ${text(most)}` });
    sides.forEach((points, side) => {
      if (!points.length) return;
      let path = "";
      for (const [moment, value] of points) {
        const at = this.clip(this.x(moment)).toFixed(1);
        const level = (y + height - 4 - (height - 8) * (value / most)).toFixed(1);
        path += path ? `H${at}V${level}` : `M${at} ${level}`;
      }
      this.add("path", { class: `curve${side ? " second" : ""}`, d: `${path}h3` });
    });
    this.add("line", { class: "lane", x1: LABELS, x2: LABELS + this.room, y1: y + height - 2, y2: y + height - 2 });
    return y + height + 4;
  }

  drawTicks(y) {
    const { since, until } = this.answer;
    const span = until - since;
    const rough = span / Math.max(2, Math.floor(this.room / 110));
    const power = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
    const zero = this.request ? this.request.start : this.answer.connection.first;
    const ticks = [];
    for (let moment = zero + Math.ceil((since - zero) / step) * step; moment <= until; moment += step) {
      const at = this.x(moment);
      const after = moment - zero;
      ticks.push(drawn("line", { class: "tick", x1: at, x2: at, y1: 0, y2: y }));
      ticks.push(drawn("text", { x: at, y: y + 14, "text-anchor": "middle" }, after ? duration(after) : "0"));
    }
    return ticks;
  }

  // At the cursor, each curve says its values: the client's, the server's. `at` null: its highest.
  sayLevels(at) {
    for (const { node, sides, text, most } of this.levels ?? []) {
      const values = at === null ? [] : sides.map((points) => points.findLast(([moment]) => moment <= at)?.[1]).filter((value) => value !== undefined);
      node.textContent = values.length ? values.map(text).join(", ").replace(" segments,", ",") : most;
    }
  }

  // The text of a mark: when, by whom, what.
  say(mark) {
    const { connection } = this.answer;
    const zero = this.request ? this.request.start : connection.first;
    const who = `${mark.side ? "server" : "client"}${connection.owners[mark.side] === "-" ? "" : ` ${connection.owners[mark.side]}`}`;
    return `${clock(mark.t, this.origin_ms, 6)} (${duration(mark.t - zero)}), ${who}: ${mark.text}`;
  }

  choose(index) {
    this.active = index;
    this.pointAt(index);
    this.chosen(this.answer.marks[index], index);
  }

  pointAt(index) {
    if (!this.ring) return; // not drawn yet
    const place = this.places.find((one) => one.index === index);
    this.ring.setAttribute("visibility", place ? "visible" : "hidden");
    if (!place) return;
    this.ring.setAttribute("cx", place.x);
    this.ring.setAttribute("cy", place.y);
  }

  at(event) {
    const box = this.node.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  move(event) {
    const { x, y } = this.at(event);
    this.cursor?.setAttribute("visibility", x > LABELS ? "visible" : "hidden");
    this.cursor?.setAttribute("x1", x);
    this.cursor?.setAttribute("x2", x);
    this.sayLevels(x > LABELS ? this.moment(x) : null);
    if (this.from !== undefined) {
      this.rangeBox.setAttribute("visibility", "visible");
      this.rangeBox.setAttribute("x", Math.min(x, this.from));
      this.rangeBox.setAttribute("width", Math.abs(x - this.from));
      return;
    }
    let best = null;
    for (const place of this.places ?? []) {
      const far = Math.hypot(place.x - x, (place.y - y) / 2);
      if (far < NEAR && (!best || far < best.far)) best = { far, index: place.index };
    }
    if (best && best.index !== this.active) this.choose(best.index);
  }

  down(event) {
    const { x } = this.at(event);
    if (event.button === 0 && x > LABELS && !event.target.classList.contains("request")) this.from = x;
  }

  up(event) {
    const { x } = this.at(event);
    const from = this.from;
    this.from = undefined;
    this.rangeBox?.setAttribute("visibility", "hidden");
    if (from !== undefined && Math.abs(x - from) > 6) this.zoom(this.moment(Math.min(x, from)), this.moment(Math.max(x, from)));
  }

  leave() {
    this.from = undefined;
    this.sayLevels(null);
    this.cursor?.setAttribute("visibility", "hidden");
    this.rangeBox?.setAttribute("visibility", "hidden");
  }

  scaleBy(factor) {
    const { since, until } = this.answer;
    const mark = this.answer.marks[this.active];
    const middle = mark ? mark.t : (since + until) / 2;
    this.zoom(Math.round(middle - (middle - since) * factor), Math.round(middle + (until - middle) * factor));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.answer.marks.length - 1;
    const to = { ArrowRight: this.active + 1, ArrowLeft: this.active - 1, Home: 0, End: last }[event.key];
    if (to !== undefined) {
      if (last >= 0) this.choose(Math.max(0, Math.min(last, to)));
    } else if (event.key === "+" || event.key === "=") this.scaleBy(0.5);
    else if (event.key === "-") this.scaleBy(2);
    else if (event.key === "0") this.zoom(null, null);
    else return;
    event.preventDefault();
  }
}

export const axisLegend = () =>
  element("ul", { class: "legend" },
    [["send", "write"], ["recv", "read"], ["segment", "segment"], ["again", "sent again, or dropped"], ["ack", "acknowledged"], ["state", "connection"], ["recv", "client's curve"], ["send_queue", "server's curve"]].map(([color, text]) => {
      const swatch = element("i");
      swatch.style.background = `var(--${color})`;
      return element("li", null, swatch, text);
    }));

export const splitLegend = (request) =>
  element("ul", { class: "legend" }, PARTS.filter((part) => request.split[part] !== null).map((part) =>
    element("li", null, element("i", { class: part }), `${partName(part, request)} ${duration(request.split[part])}`)));
