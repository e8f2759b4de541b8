"""The cases of Kubernetes' docs/reference/kubectl/jsonpath.md, and what is no JSONPath."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.cli import jsonpath

LIST: dict[str, Any] = {
    "kind": "List",
    "items": [
        {
            "metadata": {"name": "a", "labels": {"app.io/tier": "prod"}},
            "status": {"cpus": 4, "ready": True, "conditions": [{"type": "Ready", "status": "True"}]},
        },
        {
            "metadata": {"name": "b"},
            "status": {
                "cpus": 8,
                "ready": False,
                "conditions": [{"type": "Ready", "status": "False"}, {"type": "Stalled"}],
            },
        },
    ],
    "users": [
        {"name": "myself", "user": {}},
        {"name": "e2e", "user": {"username": "admin", "password": "secret"}},
    ],
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("kind is {.kind}", "kind is List"),
        ("{.kind}", "List"),
        ("{['kind']}", "List"),
        ("{$.kind}", "List"),
        ("{.items[0].metadata.name}", "a"),
        ("{.items[-1].metadata.name}", "b"),
        ("{.items[7].metadata.name}", ""),
        ("{.items[*].metadata.name}", "a b"),
        ("{.items[0:1].metadata.name}", "a"),
        ("{.items[:].metadata.name}", "a b"),
        ("{.items[0,1].status.cpus}", "4 8"),
        ("{.items[*]['metadata.name', 'status.cpus']}", "a b 4 8"),
        ("{.items[0].metadata.labels['app\\.io/tier']}", "prod"),
        ("{.items[*].metadata['name']}", "a b"),
        ("{..name}", "a b myself e2e"),
        ('{.users[?(@.name=="e2e")].user.password}', "secret"),
        ("{.users[?(@.name == 'e2e')].user.username}", "admin"),
        ("{.users[?(@.user.password)].name}", "e2e"),
        ("{.items[?(@.status.cpus>4)].metadata.name}", "b"),
        ("{.items[?(@.status.cpus<=4)].metadata.name}", "a"),
        ("{.items[?(@.status.ready==true)].metadata.name}", "a"),
        ("{.items[?(@.status.ready!=true)].metadata.name}", "b"),
        ("{.items[0].status.conditions[?(@.type=='Ready')].status}", "True"),
        ("{.items[0].status.ready} {.items[0].status.cpus}", "true 4"),
        ("{.items[0].metadata.labels}", '{"app.io/tier":"prod"}'),
        ("{.items[0].metadata.labels.app\\.io/tier}", "prod"),
        ("{.users[*].user.*}", "admin secret"),
        ('{range .items[*]}{.metadata.name}{"\\t"}{.status.cpus}{"\\n"}{end}', "a\t4\nb\t8\n"),
        ("{range .items[*]}{range .status.conditions[*]}{.type};{end}|{end}", "Ready;|Ready;Stalled;|"),
        ("{.absent.field}", ""),
        ("{'a } in quotes'}", "a } in quotes"),
    ],
)
def test_a_template_takes_out_what_it_names(template: str, expected: str) -> None:
    assert expected == jsonpath.template(template).render(LIST)


@pytest.mark.parametrize("text", [".metadata.name", "metadata.name", "{.metadata.name}", "{metadata.name}"])
def test_a_column_needs_neither_braces_nor_the_first_dot(text: str) -> None:
    assert ["a"] == jsonpath.path(text).find(LIST["items"][0])


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (".metadata.name", "write {.metadata.name}"),
        ("{.a", "never closed"),
        ("{.a.}", "the name of a field"),
        ("{.a[}", "in brackets stands"),
        ("{.a[x]}", "in brackets stands"),
        ("{.a[0}", "in brackets stands"),
        ("{.a[::0]}", "step of a slice"),
        ("{.a[?(@.b==)]}", "a filter compares"),
        ("{.a[?(@.b==1]}", "a filter is written"),
        ("{.a b}", "does not understand"),
        ("{range .a[*]}{.b}", "without {end}"),
        ("{.b}{end}", "without {range}"),
        ("{'a}", "never closed"),
        ("{}", "write a path"),
        ("{.a[?(@.b==1 && @.c==2)]}", "a filter is written"),
    ],
)
def test_what_is_no_jsonpath_is_refused_with_what_would_be(template: str, problem: str) -> None:
    with pytest.raises(jsonpath.JsonPathError) as error:
        jsonpath.template(template)
    assert problem in str(error.value)


@given(st.text(alphabet="{}[].*?(@)=!<>'\"\\:,$ab01 -", max_size=30))
def test_any_text_is_rendered_or_refused(text: str) -> None:
    try:
        jsonpath.template("{" + text + "}").render(LIST)
    except jsonpath.JsonPathError:
        pass
