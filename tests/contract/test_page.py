"""The page of the documentation, and the files of answers, agree with the statements."""

from __future__ import annotations

import json

import pytest

from tests.contract.conftest import ANSWERS
from tests.contract.statement import GROUPS, PAGE, render, statements, unmarked


def test_the_page_lists_the_statements():
    assert PAGE.read_text(encoding="utf-8") == render(), "Generate it again: python -m tests.contract document"


@pytest.mark.parametrize("group", GROUPS)
def test_each_statement_says_what_it_rests_on(group):
    assert unmarked(group) == []


@pytest.mark.parametrize("file", sorted(ANSWERS.glob("*.json")), ids=lambda file: file.name)
def test_each_answer_is_of_a_statement_and_says_where_it_is_from(file):
    names = {statement.name for statement in statements()}
    for entry in json.loads(file.read_text(encoding="utf-8")):
        assert entry["statement"] in names
        assert entry["source"]
