"""The rules as text: cut out of a configuration file, edited, read again. No file is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from router import settings
from router.errors import ConfigError
from router.settings.editing import EditRefused, edited, rules_text
from tests.peers import ROOT

FILE = """\
default_deliver = ["pacs"]

[destinations.pacs]
type = "folder"
path = "out"

# peers
[[peers]]
ae_title = "CR1"

# about rules

# chest
[[rules]]
name = "chest"   # thorax
deliver = [
  "pacs",
]
[rules.when]
Modality = "CR"

# where others go
[[rules]]
name = "others"
deliver = ["pacs"]

# how loud
[log]
level = "info"
"""


def read(tmp_path: Path, text: str = FILE) -> settings.Settings:
    path = tmp_path / "router.toml"
    path.write_text(text)
    return settings.load(path)


def problems(of: settings.Settings, text: str) -> list[tuple[int | None, str]]:
    with pytest.raises(EditRefused) as refused:
        edited(of, text)
    return [(problem.line, problem.text) for problem in refused.value.found]


def test_the_rules_are_shown_as_the_file_has_them_with_comments_and_lines(tmp_path: Path) -> None:
    shown = rules_text(read(tmp_path))
    between = FILE[FILE.index("# chest\n") : FILE.index("\n# how loud")]
    assert shown.text == f'default_deliver = ["pacs"]\n\n{between}'
    assert [FILE.splitlines()[line - 1] for line in shown.lines] == ["[[rules]]", "[[rules]]"]


@pytest.mark.parametrize("name", ["router.toml", "compose.toml"])
def test_what_is_shown_of_a_configuration_that_we_ship_means_the_same(name: str) -> None:
    whole = settings.load(ROOT / "config" / name)
    shown = rules_text(whole)
    assert edited(whole, shown.text).rules == whole.rules
    assert len(shown.lines) == len(whole.rules)


@pytest.mark.parametrize(
    "rules",
    [
        'rules = [{ name = "a", deliver = ["pacs"] }]\n',  # not in tables of their own
        'rules = [{ name = "q\\"\\\\\\u007fü\\n", when = { Modality = ["C*", ""] }, deliver = ["pacs"] }]\n',
        "rules = []\n",
    ],
)
def test_rules_that_stand_elsewhere_are_written_anew_and_mean_the_same(tmp_path: Path, rules: str) -> None:
    whole = read(tmp_path, rules + FILE[: FILE.index("# about rules")])
    shown = rules_text(whole)
    assert shown.lines == ()
    assert (edited(whole, shown.text).rules, edited(whole, shown.text).default_deliver) == (
        whole.rules,
        whole.default_deliver,
    )


@pytest.mark.parametrize("name", ["[[rules]]", "[log]"])
def test_a_text_that_looks_like_a_table_does_not_deceive(tmp_path: Path, name: str) -> None:
    whole = read(tmp_path, FILE.replace('"others"', f'"""\n{name}\n"""'))
    shown = rules_text(whole)
    assert shown.lines == ()
    assert edited(whole, shown.text).rules == whole.rules


def test_settings_that_come_from_no_file_have_a_text_too() -> None:
    whole = settings.parse(
        {
            "destinations": {"pacs": {"type": "folder", "path": "out"}},
            "rules": [{"name": "a", "when": {"Modality": "CR"}, "deliver": ["pacs"]}],
        }
    )
    shown = rules_text(whole)
    assert shown.text == '[[rules]]\nname = "a"\nwhen = { Modality = ["CR"] }\ndeliver = ["pacs"]\n'
    assert edited(whole, shown.text).rules == whole.rules


def test_an_edited_text_is_taken_whole_and_the_rest_of_the_settings_stays(tmp_path: Path) -> None:
    whole = read(tmp_path)
    other = edited(whole, '[[rules]]\r\nname = "x"\r\ndeliver = ["pacs"]\r\n')
    assert [rule.name for rule in other.rules] == ["x"]
    assert other.default_deliver == ()
    assert other.destinations == whole.destinations
    assert whole.default_deliver == ("pacs",)


def test_problems_have_the_words_of_a_whole_file_and_the_line_in_the_edited_text(tmp_path: Path) -> None:
    whole = read(tmp_path)
    text = (
        '[[rules]]\nname = "a"\ndeliver = ["pasc"]\n\n'
        '[[rules]]\nname = "a"\nwhen = { Modalty = "CR" }\nclasify = []\n\n[web]\nport = 3\n'
    )
    assert problems(whole, text) == [
        (3, "rules[0].deliver: 'pasc' is not defined; did you mean 'pacs'?"),
        (5, "rules[1]: has neither classify nor deliver: it would take instances and do nothing"),
        (6, "rules[1].name: 'a' is used twice; the ledger tells rules apart by name"),
        (7, "rules[1].when.Modalty: not a DICOM keyword; did you mean 'Modality'?"),
        (8, "rules[1].clasify: unknown key; did you mean 'classify'?"),
        (10, "web: only default_deliver and [[rules]] can be tried here"),
    ]
    (tmp_path / "router.toml").write_text(text + FILE[FILE.index("[destinations") : FILE.index("# about")])
    with pytest.raises(ConfigError) as refused:
        settings.load(tmp_path / "router.toml")
    of_rules = {problem for problem in refused.value.problems if problem.startswith("rules")}
    assert of_rules == {told for _, told in problems(whole, text) if told.startswith("rules")}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[[rules]]\nname =\n", 2, "not valid TOML: Invalid value (at line 2, column 7)"),
        ('[[rules]]\nname = "a', 2, "not valid TOML: "),
        ("x = " + "[" * 4000, None, "not valid TOML: "),
        ("a" + ".a" * 20000 + " = 1", 1, "a line has more than 4096 characters"),
        ("#" * 80 + "\n" * 2**16, None, "the text has more than 65536 characters"),
        ("rules = 3", 1, "rules: must be tables such as [[rules]] (it is 3)"),
        ("default_deliver = 'pacs'", 1, "default_deliver: must be a list in [ ] (it is 'pacs')"),
        ("[[rules]]\ndeliver = ['pacs']", 1, "rules[0].name: is missing"),
    ],
)
def test_what_cannot_be_read_says_so_and_where(tmp_path: Path, text: str, line: int | None, says: str) -> None:
    ((found, told),) = problems(read(tmp_path), text)
    assert told.startswith(says)
    assert found == line or line is None
