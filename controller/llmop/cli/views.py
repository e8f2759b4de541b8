"""How objects are shown by `get`: the server's tables, whole objects, names, or what the user takes out of them."""

from collections.abc import Sequence
from typing import Any

from llmop.cli import outputs, printing, targets
from llmop.cli.session import out, say


class View:
    """One form for all objects of a command. `namespace` is that of kinds that have one, unless `all_namespaces`."""

    def __init__(
        self,
        output: outputs.Output,
        *,
        namespace: str,
        all_namespaces: bool = False,
        headers: bool = True,
        show_labels: bool = False,
        label_columns: Sequence[str] = (),
    ) -> None:
        self.all_namespaces = all_namespaces
        self._output = output
        self._namespace = namespace
        self._headers = headers
        self._show_labels = show_labels
        self._label_columns = label_columns
        self._prefix = False  # names as TYPE/NAME, where several kinds stand below each other
        self._widths: list[int] = []  # of the lines that stand already

    def scope(self, kind: Any) -> str:
        """The namespace to ask for; "" = all, or none."""
        return "" if not kind.namespaced or self.all_namespaces else self._namespace

    def ordered(self, rows: Sequence[Any], sort_by: str) -> list[Any]:
        """Raises UsageError."""
        places = outputs.ordered([printing.document(row.object) for row in rows], sort_by)
        return [rows[place] for place in places]

    def show(self, blocks: Sequence[tuple[Any, list[Any], list[Any]]], *, named: bool) -> None:
        """`blocks` are (kind, rows, columns); `named` when each object was asked for by its name."""
        items = [row.object for _, rows, _ in blocks for row in rows]
        if self._output.word in ("yaml", "json", "jsonpath"):
            if named and not items:
                return
            value = printing.document(items[0]) if named and len(items) == 1 else printing.listing(items)
            self._write(value)
            return
        if not items:
            if not named:
                scoped = any(kind.namespaced for kind, _, _ in blocks) and not self.all_namespaces
                where = f" in {self._namespace} namespace" if scoped else ""
                say(f"No resources found{where}.")
            return
        if self._output.word == "name":
            for item in items:
                out(targets.label_of(item))
            return
        if self._output.word == "custom-columns":
            out("\n".join(printing.table(self._custom(items))))
            return
        filled = [block for block in blocks if block[1]]
        self._prefix = len(filled) > 1
        texts = [
            "\n".join(printing.table(self._cells(kind, rows, columns))) for kind, rows, columns in filled
        ]
        out("\n\n".join(texts))

    def add(self, kind: Any, rows: Sequence[Any], columns: Sequence[Any]) -> None:
        """Further lines below those that stand already, for a watch."""
        if not rows:
            return
        if self._output.is_table or self._output.word == "custom-columns":
            cells = (
                self._cells(kind, rows, columns)
                if self._output.is_table
                else self._custom([row.object for row in rows])
            )
            self._widths = printing.column_widths(cells, self._widths)
            out("\n".join(printing.table(cells, self._widths)))
            self._headers = False
            return
        for row in rows:
            if self._output.word == "name":
                out(targets.label_of(row.object))
            else:
                if self._output.word == "yaml":
                    out("---")
                self._write(printing.document(row.object))

    def _write(self, value: dict[str, Any]) -> None:
        if self._output.template is not None:
            # As kubectl: no line end but those that the template asks for.
            out(self._output.template.render(value), end="")
        else:
            write = printing.to_yaml if self._output.word == "yaml" else printing.to_json
            out(write(value).rstrip("\n"))

    def _custom(self, items: Sequence[Any]) -> list[list[str]]:
        header = [[name for name, _ in self._output.columns]] if self._headers else []
        return header + [outputs.cells(self._output, printing.document(item)) for item in items]

    def _cells(self, kind: Any, rows: Sequence[Any], columns: Sequence[Any]) -> list[list[str]]:
        """Header and rows as text, without the columns that are not asked for."""
        kept = [
            index for index, column in enumerate(columns) if self._output.word == "wide" or not column.wide
        ]
        with_namespace = self.all_namespaces and kind.namespaced
        lines = []
        if self._headers:
            names = [columns[index].name for index in kept]
            names += [key.rpartition("/")[2].upper() for key in self._label_columns]
            names += ["LABELS"] if self._show_labels else []
            lines.append((["NAMESPACE"] if with_namespace else []) + names)
        for row in rows:
            cells = [row.cells[index] for index in kept]
            if self._prefix and columns[kept[0]].name == "NAME":
                cells[0] = targets.label_of(row.object)
            labels = row.object.metadata.labels
            cells += [labels.get(key) or outputs.NONE for key in self._label_columns]
            if self._show_labels:
                cells.append(",".join(f"{key}={labels[key]}" for key in sorted(labels)) or outputs.NONE)
            lines.append(([row.object.metadata.namespace] if with_namespace else []) + cells)
        return lines
