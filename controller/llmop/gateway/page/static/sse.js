// Server-sent events out of pieces that may end anywhere, as the HTML standard reads them; comments are given too.

const LONGEST = 16 * 1024 * 1024; // characters of an event; more is no answer of a model

export class EventReader {
  #rest = "";
  #data = [];
  #size = 0;

  // What is complete with this piece: {data} and {comment}, in order. Throws RangeError for an event that does not end.
  push(piece) {
    const found = [];
    const text = this.#rest + piece;
    const end = /\r\n|\n|\r/g;
    let start = 0;
    for (let match; (match = end.exec(text));) {
      // A carriage return at the very end may be the first half of a line's end.
      if (match[0] === "\r" && end.lastIndex === text.length) break;
      this.#line(text.slice(start, match.index), found);
      start = end.lastIndex;
    }
    this.#rest = text.slice(start);
    if (this.#size + this.#rest.length > LONGEST) throw new RangeError("an event of the answer does not end");
    return found;
  }

  #line(line, found) {
    if (line === "") {
      if (this.#data.length) found.push({ data: this.#data.join("\n") });
      this.#data = [];
      this.#size = 0;
    } else if (line.startsWith(":")) {
      found.push({ comment: line.slice(1).trim() });
    } else if (line.startsWith("data:")) {
      const value = line.slice(line[5] === " " ? 6 : 5);
      this.#data.push(value);
      this.#size += value.length;
    }
  }
}
