// The part of Markdown that models write, as elements. Nothing becomes markup: HTML is shown as text, links go to http and https alone,
// pictures are links. The work is bounded whatever the text is: lengths, depths and numbers of elements have a limit, and what is beyond
// it is shown as plain text.

import { h } from "./dom.js";

const LONGEST = 200_000; // characters
const MOST_BLOCKS = 3000;
const MOST_NODES = 2000; // elements of one block
const DEEPEST = 6;
const WIDEST_TABLE = 30; // columns
const WIDEST_ROW = 2000; // characters of a line that may be a table's

// None of these may take more than linear time: what follows a repeated part never begins like it.
const FENCE = /^ {0,3}(`{3,}(?!`)|~{3,}(?!~))([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const ITEM = /^( {0,12})([-*+]|\d{1,9}[.)])[ \t]+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const COLUMNS = /^\|? *:?-+:? *(?:\| *:?-+:? *)*\|?$/;

// A text that grows: blocks that are as they were stay in the page.
export class Markdown {
  #shown = [];

  // `cite(number)` gives a link's attributes for [number], or null.
  constructor(place, cite = () => null) {
    this.place = place;
    this.cite = cite;
  }

  show(text) {
    const blocks = split(text);
    let same = 0;
    while (
      same < blocks.length &&
      same < this.#shown.length &&
      this.#shown[same].source === blocks[same].source &&
      this.#shown[same].kind === blocks[same].kind
    )
      same++;
    for (const old of this.#shown.splice(same)) old.node.remove();
    for (const block of blocks.slice(same)) {
      const node = render(block, { cite: this.cite, nodes: MOST_NODES }, 0);
      this.#shown.push({ ...block, node });
      this.place.append(node);
    }
  }
}

// {kind, source, lines} of each block.
export function split(text) {
  const plain = text.length > LONGEST ? text.slice(LONGEST) : "";
  const lines = (plain ? text.slice(0, LONGEST) : text).split(/\r\n|\n|\r/);
  const blocks = [];
  let number = 0;
  const take = (kind, end) => {
    const taken = lines.slice(number, end);
    blocks.push({ kind, lines: taken, source: taken.join("\n") });
    number = end;
  };
  while (number < lines.length) {
    const line = lines[number];
    if (blocks.length >= MOST_BLOCKS) take("plain", lines.length);
    else if (line.trim() === "") number++;
    else if (FENCE.test(line)) take("code", endOfFence(lines, number));
    else if (HEADING.test(line)) take("heading", number + 1);
    else if (RULE.test(line)) take("rule", number + 1);
    else if (QUOTE.test(line))
      take(
        "quote",
        endWhile(lines, number, (each) => QUOTE.test(each)),
      );
    else if (ITEM.test(line)) take("list", endOfList(lines, number));
    else if (isTable(lines, number))
      take(
        "table",
        endWhile(lines, number + 2, (each) => each.includes("|")),
      );
    else take("paragraph", endOfParagraph(lines, number));
  }
  if (plain) blocks.push({ kind: "plain", lines: [plain], source: plain });
  return blocks;
}

function endWhile(lines, from, holds) {
  let end = from;
  while (end < lines.length && holds(lines[end])) end++;
  return end;
}

function endOfFence(lines, from) {
  const [, fence] = FENCE.exec(lines[from]);
  const last = endWhile(lines, from + 1, (each) => {
    const word = each.trim();
    return !(word.length >= fence.length && word === fence[0].repeat(word.length));
  });
  return Math.min(last + 1, lines.length);
}

function endOfList(lines, from) {
  let end = from + 1;
  let fence = "";
  for (; end < lines.length; end++) {
    const line = lines[end];
    const mark = /^\s*(`{3}|~{3})/.exec(line);
    if (mark) fence = fence === mark[1] ? "" : fence || mark[1];
    if (fence || ITEM.test(line) || /^ {2,}\S/.test(line)) continue;
    if (
      line.trim() === ""
        ? !/^ {2,}\S/.test(lines[end + 1] ?? "") && !ITEM.test(lines[end + 1] ?? "")
        : lines[end - 1].trim() === "" || begins(lines, end)
    )
      break;
  }
  return end;
}

const begins = (lines, number) =>
  [FENCE, HEADING, RULE, QUOTE, ITEM].some((form) => form.test(lines[number])) || isTable(lines, number);

function endOfParagraph(lines, from) {
  let end = from + 1;
  while (end < lines.length && lines[end].trim() !== "" && !begins(lines, end)) end++;
  return end;
}

function isTable(lines, number) {
  const [head, columns = ""] = [lines[number], lines[number + 1]];
  return head.includes("|") && columns.includes("-") && head.length + columns.length < WIDEST_ROW && COLUMNS.test(columns.trim());
}

function render(block, context, depth) {
  const { kind, lines } = block;
  if (kind === "plain" || depth > DEEPEST || context.nodes-- <= 0) return h("p", { class: "plain" }, block.source);
  switch (kind) {
    case "code":
      return code(lines, depth);
    case "heading": {
      const [, marks, title] = HEADING.exec(lines[0]);
      // Below the headings of the page itself.
      return into(h(`h${Math.min(6, marks.length + 2)}`), title.trimEnd().replace(/ #{1,6}$/, ""), context);
    }
    case "rule":
      return h("hr");
    case "quote":
      return within(
        h("blockquote"),
        lines.map((line) => QUOTE.exec(line)[1]),
        context,
        depth,
      );
    case "list":
      return list(lines, context, depth);
    case "table":
      return table(lines, context);
    default:
      return into(h("p"), lines.map((line) => line.trim()).join("\n"), context);
  }
}

function within(element, lines, context, depth) {
  for (const block of split(lines.join("\n"))) element.append(render(block, context, depth + 1));
  return element;
}

function code(lines, depth) {
  const [, fence, info] = FENCE.exec(lines[0]);
  const language = /^[\w+#.-]{0,30}/.exec(info.trim())[0];
  const last = lines.at(-1).trim();
  const isClosed = lines.length > 1 && last.length >= fence.length && last === fence[0].repeat(last.length);
  const text = lines.slice(1, isClosed ? -1 : undefined).join("\n");
  const copy = h("button", { type: "button", class: "quiet", onclick: () => copyText(text, copy) }, "Copy");
  return h(
    "div",
    { class: "code" },
    h("div", { class: "code-head" }, h("span", {}, language || "code"), navigator.clipboard && depth === 0 ? copy : null),
    h("pre", { tabindex: 0, "aria-label": language ? `${language} code` : "code" }, h("code", {}, text)),
  );
}

export async function copyText(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => (button.textContent = before), 2000);
}

function list(lines, context, depth) {
  const [, , mark] = ITEM.exec(lines[0]);
  const isOrdered = /\d/.test(mark);
  const start = Number.parseInt(mark, 10);
  const element = h(isOrdered ? "ol" : "ul", isOrdered && start !== 1 ? { start } : {});
  const base = ITEM.exec(lines[0])[1].length;
  let item = [];
  let width = 0;
  const finish = () => {
    if (!item.length) return;
    const blocks = split(item.join("\n"));
    const place = h("li");
    for (const [index, block] of blocks.entries()) {
      if (index === 0 && block.kind === "paragraph" && context.nodes > 0)
        into(place, block.lines.map((line) => line.trim()).join("\n"), context);
      else place.append(render(block, context, depth + 1));
    }
    element.append(place);
  };
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= base + 1 && context.nodes-- > 0) {
      finish();
      width = line.length - found[3].length;
      item = [found[3]];
    } else {
      const indent = line.length - line.trimStart().length;
      item.push(line.slice(Math.min(indent, width)));
    }
  }
  finish();
  return element;
}

const cells = (line) =>
  line
    .trim()
    .replace(/^\||\|$/g, "")
    .split("|", WIDEST_TABLE)
    .map((cell) => cell.trim());

function table(lines, context) {
  const row = (line, tag) => {
    context.nodes -= 1;
    return h(
      "tr",
      {},
      cells(line).map((cell) => into(h(tag), cell, context)),
    );
  };
  const head = row(lines[0], "th");
  const body = h("tbody");
  let number = 2;
  for (; number < lines.length && context.nodes > 0; number++) body.append(row(lines[number], "td"));
  const rest = lines.slice(number).join("\n");
  return h(
    "div",
    { class: "table", tabindex: 0, role: "region", "aria-label": "table" },
    h("table", {}, h("thead", {}, head), body),
    rest ? h("p", { class: "plain" }, rest) : null,
  );
}

const SPECIAL = /[\\`*_[!~\n]|https?:\/\//g;
const LINK =
  /!?\[([^[\]\n]{1,500})\]\(<?(https?:\/\/[^\s()<>]{1,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,500})?)>?(?: "[^"\n]{0,200}")?\)/y;
const CITATION = /\[(\d{1,3})\](?!\()/y;
const ADDRESS = /https?:\/\/[^\s<>"'`)\]}|\\]{1,2000}/y;
const MARKS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];
const WORD = /[\p{L}\p{N}]/u;

// Puts the words of a text into an element.
function into(element, text, context, depth = 0) {
  let plain = 0; // where what has not been put yet begins
  let at = 0;
  const missing = new Set(); // what does not end in this text, so that nobody looks for it again
  const put = (node, from, to) => {
    if (from > plain) element.append(text.slice(plain, from));
    element.append(node);
    plain = at = to;
  };
  while (context.nodes > 0) {
    SPECIAL.lastIndex = at;
    const found = SPECIAL.exec(text);
    if (!found) break;
    at = found.index;
    const next = one(text, at, missing, context, depth);
    if (next) {
      context.nodes--;
      put(next.node, at, next.end);
    } else {
      at += found[0].length;
    }
  }
  if (plain < text.length) element.append(text.slice(plain));
  return element;
}

// The element that begins here, or null.
function one(text, at, missing, context, depth) {
  switch (text[at]) {
    case "\n":
      return { node: h("br"), end: at + 1 };
    case "\\":
      return /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "") ? { node: document.createTextNode(text[at + 1]), end: at + 2 } : null;
    case "`":
      return codeSpan(text, at, missing);
    case "[":
    case "!":
      return citation(text, at, context) ?? link(text, at);
    case "h":
      return bareLink(text, at);
    default:
      return depth < DEEPEST ? emphasis(text, at, missing, context, depth) : null;
  }
}

function codeSpan(text, at, missing) {
  let run = 1;
  while (text[at + run] === "`" && run < 20) run++;
  const fence = "`".repeat(run);
  if (missing.has(fence)) return null;
  for (let end = text.indexOf(fence, at + run); end >= 0;) {
    let after = end + run;
    while (text[after] === "`") after++;
    if (after === end + run) return { node: h("code", {}, unpadded(text.slice(at + run, end))), end: after };
    end = text.indexOf(fence, after);
  }
  missing.add(fence);
  return null;
}

const unpadded = (code) => (code.startsWith(" ") && code.endsWith(" ") && code.trim() ? code.slice(1, -1) : code);

function citation(text, at, context) {
  CITATION.lastIndex = at;
  const found = CITATION.exec(text);
  const attributes = found && context.cite(Number(found[1]));
  return attributes ? { node: h("a", attributes, `[${found[1]}]`), end: CITATION.lastIndex } : null;
}

function link(text, at) {
  LINK.lastIndex = at;
  const found = LINK.exec(text);
  return found ? { node: outside(found[2], found[1]), end: LINK.lastIndex } : null;
}

function bareLink(text, at) {
  ADDRESS.lastIndex = at;
  const found = ADDRESS.exec(text);
  if (!found) return null;
  const address = found[0].replace(/[.,;:!?*_~]{1,20}$/, "");
  return /^https?:\/\/.+/.test(address) ? { node: outside(address, address), end: at + address.length } : null;
}

// The whole address can be seen before it is followed, for the words may say another one.
function outside(address, words) {
  return h("a", { href: address, title: address, target: "_blank", rel: "noopener noreferrer nofollow" }, words);
}

function emphasis(text, at, missing, context, depth) {
  const found = MARKS.find(([mark]) => text.startsWith(mark, at));
  if (!found) return null;
  const [mark, tag] = found;
  const isInWord = mark[0] === "_" && WORD.test(text[at - 1] ?? "");
  if (missing.has(mark) || isInWord || /\s/.test(text[at + mark.length] ?? " ")) return null;
  let end = at + mark.length;
  for (let tries = 0; tries < 10; tries++) {
    end = text.indexOf(mark, end + 1);
    if (end < 0) {
      if (tries === 0) missing.add(mark);
      return null;
    }
    const isDouble = mark.length === 1 && text[end + 1] === mark;
    if (isDouble) end++;
    else if (!/\s/.test(text[end - 1]) && !(mark[0] === "_" && WORD.test(text[end + mark.length] ?? ""))) {
      if (mark === "**" && text[at + 2] === "*" && text[end + 2] === "*") end++; // ***both***
      const inner = text.slice(at + mark.length, end);
      return { node: into(h(tag), inner, context, depth + 1), end: end + mark.length };
    }
  }
  return null;
}
