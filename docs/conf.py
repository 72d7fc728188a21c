"""Sphinx's configuration: ``make docs``."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
# autodoc imports the modules, and they import Airflow, which writes its configuration to AIRFLOW_HOME.
os.environ["AIRFLOW_HOME"] = str(ROOT / "build" / "docs" / "airflow")
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
sys.path.insert(0, str(ROOT))

from docutils import nodes
from sphinx import addnodes

from airflow_provider_imageversions import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

project = "airflow-provider-imageversions"
author = "its contributors"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.intersphinx", "myst_parser", "sphinx_copybutton"]
exclude_patterns = ["snippets"]
nitpicky = True
nitpick_ignore_regex = [
    # The inventories below have only the objects that are worth a link.
    ("py:.*", r"(?!airflow_provider_imageversions).*"),
]

# The pages are built offline. inventories/ has what is referred to, in the text that an objects.inv compresses.
INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "airflow": "https://airflow.apache.org/docs/apache-airflow/stable/",
    "airflow-sdk": "https://airflow.apache.org/docs/task-sdk/stable/",
    "botocore": "https://botocore.amazonaws.com/v1/documentation/api/latest/",
}


def write_inventory(name: str) -> str:
    """Compress an inventory and return the path of the result."""
    path = ROOT / "build" / "docs" / "inventories" / f"{name}.inv"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n# The rest is compressed with zlib.\n"
    text = (ROOT / "docs" / "inventories" / f"{name}.txt").read_bytes()
    path.write_bytes(header.encode() + zlib.compress(text))
    return str(path)


intersphinx_mapping = {name: (url, write_inventory(name)) for name, url in INVENTORIES.items()}

copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autoclass_content = "both"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
# The types beside the descriptions rather than in a signature of twenty parameters.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100


GUIDES = "Guides"  # the caption on the first page
# Pages whose headings and terms quote messages.
MESSAGE_PAGES = ("troubleshooting", "logs")


def add_message_search(app: Sphinx, page: str, *_: object) -> None:
    """Let the search page find a message that is pasted with its values."""
    if page == "search":
        app.add_js_file("messages.js")
        app.add_js_file("find-message.js")


def write_messages(app: Sphinx) -> None:
    """Write the messages that the pages quote, with where they are explained, for find-message.js."""
    messages = []
    for page in MESSAGE_PAGES:
        for literal in app.env.get_doctree(page).findall(nodes.literal):
            holder = literal.parent
            if isinstance(holder, (nodes.title, nodes.term)):
                section = next(node for node in iter_parents(holder) if isinstance(node, nodes.section))
                messages.append({"text": literal.astext(), "url": f"{page}.html#{section['ids'][0]}"})
    (app.outdir / "_static" / "messages.js").write_text(f"window.MESSAGES = {json.dumps(messages)};\n")


def iter_parents(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield the nodes that a node is in, from the inside out."""
    while node := node.parent:
        yield node


def write_llms_txt(app: Sphinx) -> None:
    """Write llms.txt, the index of the pages for a language model, and llms-full.txt, all guides in one file."""
    index = app.env.get_doctree("index")
    lines = [f"# {project}", "", f"> {first_paragraph(index)}"]
    guides = []
    for tree in app.env.tocs["index"].findall(addnodes.toctree):
        lines += ["", f"## {tree['caption']}", ""]
        for page in tree["includefiles"]:
            title = app.env.titles[page].astext()
            lines.append(f"- [{title}]({page}.html): {first_paragraph(app.env.get_doctree(page))}")
            if tree["caption"] == GUIDES:
                guides.append(with_includes(app.srcdir / f"{page}.md"))
    (app.outdir / "llms.txt").write_text("\n".join(lines) + "\n")
    (app.outdir / "llms-full.txt").write_text("\n\n".join(guides))


def first_paragraph(page: nodes.document) -> str:
    """Return the text of a page's first paragraph in one line."""
    return " ".join(next(page.findall(nodes.paragraph)).astext().split())


def with_includes(path: Path) -> str:
    """Return a page's Markdown with the code that it includes in place."""

    def code(match: re.Match[str]) -> str:
        text = (path.parent / match[1]).read_text()
        if region := re.search(r"\[START (\w+)\]", match[2]):
            text = text.partition(f"# [START {region[1]}]\n")[2].partition(f"# [END {region[1]}]")[0]
        return f"```python\n{textwrap.dedent(text).strip()}\n```"

    return re.sub(r"^```\{literalinclude\} (\S+)\n(.*?)^```$", code, path.read_text(), flags=re.DOTALL | re.MULTILINE)


def drop_vague_types(app: Sphinx, domain: str, kind: str, content: addnodes.desc_content) -> None:
    """Drop annotations that say nothing to a reader, before Sphinx adds them to the descriptions."""
    signature = content.parent[0]
    if domain == "py" and signature.get("module"):
        name = f"{signature['module']}.{signature['fullname']}"
        annotations = app.env.current_document.autodoc_annotations.get(name, {})
        if kind == "class":
            # That of the constructor. ":return:" describes the result of the task.
            annotations.pop("return", None)
        for parameter in [parameter for parameter, text in annotations.items() if text in {"Any", "~typing.Any"}]:
            del annotations[parameter]


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Write what is made of all pages."""
    if exception is None and app.builder.format == "html":
        write_messages(app)
        write_llms_txt(app)


def setup(app: Sphinx) -> None:
    """Connect the functions above with Sphinx."""
    app.connect("html-page-context", add_message_search)
    app.connect("object-description-transform", drop_vague_types, priority=400)
    app.connect("build-finished", finish)
