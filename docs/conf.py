"""Sphinx's configuration: ``make docs``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# autodoc imports the modules, and they import Airflow, which writes its configuration where it is told to live.
os.environ["AIRFLOW_HOME"] = str(ROOT / "build" / "docs" / "airflow")
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
sys.path.insert(0, str(ROOT))

from airflow_provider_imageversions import __version__

project = "airflow-provider-imageversions"
author = "its contributors"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "myst_parser"]
exclude_patterns = ["snippets"]
nitpicky = True
nitpick_ignore_regex = [
    # No inventory of other projects is fetched, so that the pages are built offline.
    ("py:.*", r"(?!airflow_provider_imageversions).*"),
]

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_copyright = False

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
