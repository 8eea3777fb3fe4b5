// A chart of a few lines or stacked bars over time. Drag chooses a stretch of time.

import { clock, drawn, element } from "./dom.js";

const HEIGHT = 110;
const BELOW = 18; // for the times
const LEFT = 8;

export function chart({ title, series, lines, text, stacked = false, pick, origin_ms }) {
  const picture = drawn("svg", { "aria-hidden": "true", preserveAspectRatio: "none" });
  const said = element("p", { class: "quiet chart-said" });
  const { t, width } = series;
  const first = t[0] ?? 0;
  const last = (t.at(-1) ?? 0) + width;
  const totals = t.map((_, index) => (stacked ? lines.reduce((sum, line) => sum + line[2][index], 0) : Math.max(0, ...lines.map((line) => line[2][index] ?? 0))));
  const most = Math.max(0, ...totals);
  let from;
  let room = 0;

  const x = (moment) => LEFT + ((moment - first) / Math.max(1, last - first)) * room;
  const y = (value) => HEIGHT - 4 - (HEIGHT - 12) * (most ? value / most : 0);
  const box = drawn("rect", { class: "range", y: 0, height: HEIGHT, visibility: "hidden" });
  const cursor = drawn("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });

  function draw(wide) {
    room = Math.max(20, wide - 2 * LEFT);
    const bar = Math.max(1, room / Math.max(1, t.length) - 0.5);
    const marks = [];
    if (stacked) {
      const base = new Array(t.length).fill(0);
      for (const [, color, values] of lines) {
        values.forEach((value, index) => {
          if (!value) return;
          const top = y(base[index] + value);
          const rect = drawn("rect", { x: x(t[index]), width: Math.max(2, bar), y: top, height: Math.max(1, y(base[index]) - top) });
          rect.style.fill = `var(--${color})`;
          base[index] += value;
          marks.push(rect);
        });
      }
    } else {
      for (const [, color, values] of lines) {
        let path = "";
        let open = false;
        values.forEach((value, index) => {
          if (value === null) return;
          const level = y(value).toFixed(1);
          path += `${open ? "L" : "M"}${x(t[index] + width / 2).toFixed(1)} ${level}`;
          if (!open) path += "h1";
          open = true;
        });
        const line = drawn("path", { d: path, class: "line" });
        line.style.stroke = `var(--${color})`;
        const known = values.map((value, index) => [value, index]).filter(([value]) => value !== null);
        if (known.length > 1) {
          const [left, right] = [known[0][1], known.at(-1)[1]].map((index) => x(t[index] + width / 2).toFixed(1));
          const area = drawn("path", { d: `${path.replace(/h1(?=[LM]|$)/, "")}L${right} ${HEIGHT - 4}L${left} ${HEIGHT - 4}z`, class: "area" });
          area.style.fill = `var(--${color})`;
          marks.push(area);
        }
        marks.push(line);
      }
    }
    picture.setAttribute("viewBox", `0 0 ${wide} ${HEIGHT + BELOW}`);
    picture.setAttribute("height", HEIGHT + BELOW);
    const times = t.length ? [
      drawn("text", { x: LEFT, y: HEIGHT + 12 }, clock(first, origin_ms, 1)),
      drawn("text", { x: LEFT + room, y: HEIGHT + 12, "text-anchor": "end" }, clock(last, origin_ms, 1)),
    ] : [];
    picture.replaceChildren(
      drawn("line", { class: "tick", x1: LEFT, x2: LEFT + room, y1: 8, y2: 8 }),
      drawn("line", { class: "lane", x1: LEFT, x2: LEFT + room, y1: HEIGHT - 4, y2: HEIGHT - 4 }), ...times, ...marks, box, cursor);
  }

  const summary = () => (most ? `up to ${text(most)}` : "none");
  const place = (event) => event.clientX - frame.getBoundingClientRect().left;
  const moment = (at) => Math.round(first + ((at - LEFT) / room) * (last - first));
  const frame = element("div", {
    class: "plot",
    onpointermove: (event) => {
      const at = place(event);
      const index = Math.max(0, Math.min(t.length - 1, Math.floor((moment(at) - first) / width)));
      if (!t.length) return;
      cursor.setAttribute("visibility", "visible");
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
      const values = lines.map(([name, , all]) => `${name} ${all[index] === null ? "unknown" : text(all[index])}`);
      said.textContent = `${clock(t[index], origin_ms)}: ${values.join(", ") || "none"}`;
      if (from !== undefined) {
        box.setAttribute("visibility", "visible");
        box.setAttribute("x", Math.min(at, from));
        box.setAttribute("width", Math.abs(at - from));
      }
    },
    onpointerdown: (event) => {
      from = place(event);
    },
    onpointerup: (event) => {
      const at = place(event);
      if (from !== undefined && Math.abs(at - from) > 5) pick(moment(Math.min(at, from)), moment(Math.max(at, from)));
      from = undefined;
      box.setAttribute("visibility", "hidden");
    },
    onpointerleave: () => {
      from = undefined;
      cursor.setAttribute("visibility", "hidden");
      box.setAttribute("visibility", "hidden");
      said.textContent = summary();
    },
  }, picture);
  said.textContent = summary();
  new ResizeObserver(() => draw(frame.clientWidth)).observe(frame);
  const legend = element("ul", { class: "legend" }, lines.length > 1 || stacked ? lines.map(([name, color]) => {
    const swatch = element("i");
    swatch.style.background = `var(--${color})`;
    return element("li", null, swatch, name);
  }) : []);
  return element("section", { class: "card" }, element("div", { class: "card-head" }, element("h2", null, title), said), frame, lines.length > 1 || stacked ? legend : null);
}
