// Completion of a filter: terms, columns, operators and the values that are known.

import { element } from "./dom.js";

const SHOWN_MAX = 12;
const FRESH = 5000; // milliseconds
const OPERATORS = {
  string: { "=": "is", "!=": "is not", "like ": "matches, with % for anything", "in (": "is one of", "is null": "is not known", "is not null": "is known" },
  integer: { ">": "more than", "<": "less than", "=": "is", "!=": "is not", between: "from … and …", "is null": "is not known" },
  boolean: { "= true": "it is so", "= false": "it is not" },
};
const CONNECTIVES = { "and ": "both hold", "or ": "one holds" };
const TOKEN = /'[^']*'?|[A-Za-z_][A-Za-z0-9_]*|[<>=!]+|[0-9][0-9A-Za-z.]*|[(),+\-*/]/g;

const option = (text, means) => ({ text, means });
const options = (table) => Object.entries(table).map(([text, means]) => option(text, means));
const quoted = (value) => `'${value.replaceAll("'", "''")}'`;

// What may stand at the end of a text: {from, options}, where `from` is where it begins.
export function candidates(text, vocabulary) {
  if (vocabulary.columns.length && text.startsWith("where ")) return ofExpression(text, vocabulary);
  const from = /\S*$/.exec(text).index;
  const word = text.slice(from);
  const minus = word.startsWith("-") ? "-" : "";
  const typed = word.slice(minus.length).toLowerCase();
  const terms = options(vocabulary.terms).filter(({ text: term }) => term.startsWith(typed) && term !== typed && !(from && term === "where "));
  const values = !typed ? [] : Object.entries(vocabulary.values).flatMap(([column, known]) => known
    .filter((value) => value.toLowerCase().includes(typed) && value.toLowerCase() !== typed && !/\s/.test(value))
    .map((value) => option(value, column.replaceAll("_", " "))));
  const seen = new Set();
  return { from, options: [...terms, ...values].map((one) => ({ ...one, text: minus + one.text })).filter(({ text: one }) => !seen.has(one) && seen.add(one)) };
}

function ofExpression(text, vocabulary) {
  const tokens = [...text.matchAll(TOKEN)].slice(1); // after "where"
  const last = tokens.at(-1);
  const open = last && last.index + last[0].length === text.length && !/[(,]$/.test(last[0]); // it may go on
  const typed = open ? last[0] : "";
  const from = text.length - typed.length;
  const before = (open ? tokens.slice(0, -1) : tokens).map(([token]) => token);
  const columnOf = (token) => vocabulary.columns.find(({ name }) => name === token?.toLowerCase());
  const previous = before.at(-1)?.toLowerCase();
  const asked = before.findLast(columnOf);
  const column = columnOf(asked);
  let found = vocabulary.columns.map(({ name, means }) => option(`${name} `, means));
  if (column && columnOf(previous)) found = options(OPERATORS[column.type] ?? {});
  else if (column && /^([<>=!]+|like|in|\(|,)$/.test(previous ?? "")) {
    const known = vocabulary.values[column.name] ?? [];
    found = column.type === "string" ? known.map((value) => option(quoted(value), column.name.replaceAll("_", " "))) : [];
  } else if (previous && !/^(and|or|not|\(|between|[+\-*/])$/.test(previous)) found = options(CONNECTIVES);
  // A column that is written out goes on with an operator.
  if (open && columnOf(typed) && !columnOf(previous)) {
    return { from: text.length, options: options(OPERATORS[columnOf(typed).type] ?? {}).map((one) => option(` ${one.text}`, one.means)) };
  }
  const small = typed.toLowerCase();
  const bare = small.replace(/^'|'$/g, "");
  return { from, options: found.filter(({ text: one }) => one !== typed && (one.toLowerCase().startsWith(small) || (bare && one.startsWith("'") && one.toLowerCase().includes(bare)))) };
}

// A text field with a list of what may follow: a combobox. `changed()` is called when the text has changed.
export class Completion {
  constructor({ input, vocabulary, changed }) {
    Object.assign(this, { input, vocabulary, changed });
    this.found = { from: 0, options: [] };
    this.active = -1;
    this.list = element("ul", { role: "listbox", id: "completions", "aria-label": "Completions", hidden: true, onmousedown: (event) => this.click(event) });
    for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-controls": "completions", "aria-expanded": "false" })) input.setAttribute(name, value);
    input.addEventListener("input", () => this.open());
    input.addEventListener("focus", () => this.learn());
    input.addEventListener("blur", () => this.close());
    input.addEventListener("keydown", (event) => this.key(event));
    this.node = element("div", { class: "filter" }, input, this.list);
  }

  // Values that are known are asked for anew now and then: more may have come.
  learn() {
    if (Date.now() >= (this.due ?? 0)) {
      this.due = Date.now() + FRESH;
      this.learning = this.vocabulary().then((words) => {
        this.words = words;
      }).catch(() => {});
    }
    return this.learning;
  }

  async open() {
    const { input } = this;
    const learning = this.learn();
    if (!this.words) await learning;
    if (!this.words || document.activeElement !== input || input.selectionStart !== input.value.length) {
      this.close();
      return;
    }
    this.found = candidates(input.value, this.words);
    this.active = -1;
    this.draw();
  }

  draw() {
    const shown = this.found.options.slice(0, SHOWN_MAX);
    this.list.replaceChildren(...shown.map(({ text, means }, index) =>
      element("li", { role: "option", id: `completion-${index}`, "aria-selected": String(index === this.active) }, element("span", null, text.trim()), element("span", { class: "quiet" }, means))));
    this.list.hidden = !shown.length;
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
    if (this.active >= 0) this.input.setAttribute("aria-activedescendant", `completion-${this.active}`);
    else this.input.removeAttribute("aria-activedescendant");
  }

  close() {
    this.found = { from: 0, options: [] };
    this.active = -1;
    this.draw();
  }

  take(index) {
    const { input } = this;
    const { text } = this.found.options[index];
    // What is whole is followed by a space.
    input.value = input.value.slice(0, this.found.from) + text + (/[\s(>:<]$/.test(text) ? "" : " ");
    input.setSelectionRange(input.value.length, input.value.length);
    this.changed();
    this.open();
  }

  click(event) {
    const at = [...this.list.children].indexOf(event.target.closest("li"));
    event.preventDefault(); // the field keeps the focus
    if (at >= 0) this.take(at);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const count = this.list.children.length;
    if (event.key === "ArrowDown" && this.list.hidden) this.open();
    else if (event.key === "ArrowDown" && count) this.move((this.active + 1) % count);
    else if (event.key === "ArrowUp" && count) this.move(this.active <= 0 ? count - 1 : this.active - 1);
    else if (event.key === "Enter" && this.active >= 0) this.take(this.active);
    else if (event.key === "Tab" && !event.shiftKey && this.active >= 0) this.take(this.active);
    else if (event.key === "Escape" && !this.list.hidden) {
      this.close();
      event.stopPropagation(); // a second one leaves the field
    } else return;
    event.preventDefault();
  }

  move(to) {
    this.active = to;
    this.draw();
  }
}
