from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import inspect
import json
import re
import shlex
import textwrap
from pathlib import Path

import pytest

import airflow_provider_imageversions
from tests.fault_table import PARTS, TABLE

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PACKAGE = Path(airflow_provider_imageversions.__file__).parent
SNIPPETS = ROOT / "docs" / "snippets"
# Of these, tests parse or run each: test_example_dags.py, this file and tests/e2e/test_docs.py.
SOURCES = [*sorted((ROOT / "example_dags").glob("*.py")), *sorted(SNIPPETS.rglob("*.py"))]


def name_of(path):
    return str(path.relative_to(ROOT))


def blocks(page, *languages):
    """The fenced blocks of a page in these languages."""
    fences = re.findall(r"^( *)```(\S+)[^\n]*\n(.*?)^\1```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(text) for _, language, text in fences if language.lower() in languages]


def regions(path):
    """The marked regions of a file."""
    found = re.findall(r"^ *# \[START (\w+)\]\n(.*?)^ *# \[END \1\]$", path.read_text(), re.DOTALL | re.MULTILINE)
    return {name: textwrap.dedent(text).strip() for name, text in found}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_python_block_is_a_region_of_a_file_that_tests_run(page):
    known = {text for source in SOURCES for text in regions(source).values()}
    assert [block for block in blocks(page, "python", "python3", "py", "pycon") if block.strip() not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_include_is_of_a_region_or_of_a_whole_file_that_tests_run(page):
    includes = re.findall(r"^```\{literalinclude\} (\S+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    for path, options in includes:
        source = (page.parent / path).resolve()
        assert source in SOURCES
        marks = re.findall(r"^:(\S+): \"\[(START|END) (\w+)\]\"$", options, re.MULTILINE)
        if marks:
            assert [mark[:2] for mark in marks] == [("start-after", "START"), ("end-before", "END")]
            (region,) = {region for *_, region in marks}
            assert region in regions(source)
        else:
            assert set(re.findall(r"^:(\S+):", options, re.MULTILINE)) <= {"caption", "language"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_each_region_is_complete(path):
    text = path.read_text()
    assert list(regions(path)) == re.findall(r"# \[START (\w+)\]", text) == re.findall(r"# \[END (\w+)\]", text)


@pytest.mark.parametrize("path", sorted((SNIPPETS / "dags").glob("*.py")), ids=name_of)
def test_each_dag_of_the_documentation_can_be_parsed(path):
    load(path)


def test_the_quick_start_fills_the_emulator(emulator):
    text = (SNIPPETS / "quickstart_emulator.py").read_text()
    assert "http://127.0.0.1:5000" in text
    exec(text.replace("http://127.0.0.1:5000", emulator.endpoint_url), {})  # noqa: S102  # ours
    versions = emulator.client("sagemaker").list_image_versions(ImageName="my-image")["ImageVersions"]
    assert {version["ImageVersionStatus"] for version in versions} == {"CREATED"}
    assert len(versions) == 3


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_json_block_is_json(page):
    for block in blocks(page, "json"):
        json.loads(block)


def commands(page):
    """The commands of a page: the lines of its shell blocks, and code in its text that begins like a command."""
    shell = blocks(page, "console", "shell", "sh", "bash")
    lines = [line for block in shell for line in block.replace("\\\n", "").splitlines()]
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines += re.findall(r"`((?:make|airflow|pip install|(?:\S*/)?python -m) [^`]+)`", text)
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_command_exists(page):
    targets = re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = importlib.metadata.metadata("airflow-provider-imageversions").get_all("Provides-Extra")
    for command in commands(page):
        words = [word for word in command if not re.fullmatch(r"[A-Z_]+=\S*", word)]
        match words:
            case ["make", *wanted]:
                assert set(wanted) <= set(targets), command
            case [python, "-m", module, *_] if Path(python).name == "python":
                assert importlib.util.find_spec(module) or module == "build", command
            case ["pip", "install", *wanted]:
                for what in set(wanted) - {"-e", "."}:
                    name, _, extra = what.partition("[")
                    assert name in {"airflow-provider-imageversions", "aiobotocore", "pytest"}, command
                    assert not extra or extra.rstrip("]") in extras, command
            case ["export", *_]:
                from airflow.configuration import conf

                for section, option in re.findall(r"\bAIRFLOW__([A-Z]+)__([A-Z_]+)=", " ".join(command)):
                    assert conf.has_option(section, option), command
            case ["airflow", *arguments]:
                from airflow.cli.cli_parser import get_parser

                get_parser().parse_args(arguments)
            case _:
                pytest.fail(f"{name_of(page)}: nothing here knows how to check {command}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_link_to_a_file_leads_to_one(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_each_picture_is_on_a_page_says_what_it_shows_and_is_small():
    found = {
        (page.parent / path).resolve(): text
        for page in PAGES
        for text, path in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text())
    }
    pictures = set((ROOT / "docs" / "images").iterdir())
    assert set(found) == pictures
    assert all(found.values())
    assert sum(picture.stat().st_size for picture in pictures) < 1_000_000


# --- Troubleshooting -------------------------------------------------------------------------------------

# From Airflow, botocore and SageMaker.
OTHERS = {
    "AccessDeniedException … is not authorized to perform: sagemaker:…",
    "ExpiredTokenException",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "Unable to locate credentials",
    "You must specify a region.",
    "Could not connect to the endpoint URL: …",
    "Connect timeout on endpoint URL: …",
    "Read timeout on endpoint URL: …",
    "ThrottlingException … Rate exceeded",
    "ResourceInUse",
    "ResourceLimitExceeded",
    "Sensor has timed out",
    "PollCrashedError: …",
}


def words(text):
    return " ".join(text.split())


def text_of(node):
    """A message as the source has it, with … for what differs; None if it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[.0-9]*[a-z]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def explained():
    """The messages in the headings of one page and in the terms of the other."""
    headings = re.findall(r"^### (.+)$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    terms = re.findall(r"^(`.+)\n: ", (ROOT / "docs" / "logs.md").read_text(), re.MULTILINE)
    return [words(code) for line in (*headings, *terms) for code in re.findall(r"`([^`]+)`", line)]


def parts_of(message):
    """The parts of a message that each come from one text of the source, which may build a message from several."""
    # The source adds the subject of many a message.
    message = re.sub(r"^(SageMaker image …:|botocore_config) ", "", message)
    return [text for part in re.split(r"…|[:;,] |(?==)", message) if (text := part.strip(" .,:()"))]


def test_each_quoted_message_exists():
    sources = [path.read_text() for path in PACKAGE.rglob("*.py")]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    texts = {words(text_of(node) or "") for node in nodes if node not in docstrings}
    known = "\n".join(texts)

    def is_known(part):
        # A text may end with another one, such as what cannot be done with a version.
        splits = [(part[: space.start()], part[space.end() :]) for space in re.finditer(" ", part)]
        return part in known or any(start in known and end in texts for start, end in splits)

    parts = {message: parts_of(message) for message in explained() if message not in OTHERS}
    assert [message for message in parts if not parts[message]] == []
    unknown = {message: [part for part in parts[message] if not is_known(part)] for message in parts}
    assert [(message, missing) for message, missing in unknown.items() if missing] == []


# --- Reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["hooks", "operators", "sensors", "triggers", "links"])
def test_each_public_class_is_in_the_reference(module):
    name = f"airflow_provider_imageversions.{module}"
    defined = vars(importlib.import_module(name))
    own = [thing for thing in defined.values() if getattr(thing, "__module__", "").startswith(name)]
    classes = [thing.__name__ for thing in own if inspect.isclass(thing) and not thing.__name__.startswith("_")]
    page = (ROOT / "docs" / "api" / f"{module}.rst").read_text()
    assert classes
    assert [known for known in classes if f":: {name}.{known}\n" not in page] == []


def test_each_option_is_described_with_its_default():
    page = (ROOT / "docs" / "configuration.md").read_text()
    sections = airflow_provider_imageversions.get_provider_info()["config"]
    for section, described in sections.items():
        (example,) = re.findall(rf"^\[{section}\]\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        expected = {name: str(option["default"]) for name, option in described["options"].items()}
        assert dict(re.findall(r"^(\w+) = (.+)$", example, re.MULTILINE)) == expected
        assert set(re.findall(r"^## `(\w+)`$", page, re.MULTILINE)) == set(expected)


def test_each_metric_is_described():
    page = (ROOT / "docs" / "metrics.md").read_text()
    sent = re.findall(r"\{_PREFIX\}\.(\w+)", (PACKAGE / "_metrics.py").read_text())
    assert sent
    assert set(re.findall(r"^\| `sagemaker_image_versions\.(\w+)", page, re.MULTILINE)) == set(sent)


def test_each_number_of_faults_is_that_of_the_table():
    pages = {path: (ROOT / path).read_text() for path in ("README.md", "docs/promises.md")}
    counts = {path: re.findall(r"(\d+) faults\b", text) for path, text in pages.items()}
    assert counts == {path: [str(len(TABLE))] for path in pages}
    assert re.findall(r"(\d+) classes and modes", pages["docs/promises.md"]) == [str(len(PARTS))]


def test_each_module_is_in_the_layout():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    modules = [path.name for path in PACKAGE.glob("*.py")]
    assert [name for name in modules if re.search(rf"(?<![\w.]){re.escape(name)}", page) is None] == []
