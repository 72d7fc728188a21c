"""An operator and a trigger that render templates in both places, for the DAGs of the table of the context."""

from __future__ import annotations

import asyncio
import re

import greenback
from airflow.sdk import BaseOperator
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetVariable
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TriggerEvent
from jinja2 import StrictUndefined

HANGS = "hangs"
# The requests that one template may make of Airflow.
FENCES = 8


def _outcome(render, template):
    try:
        value = render(template)
    except Exception as error:  # noqa: BLE001  # that it raises is what is asked
        return ["raises", type(error).__name__, str(error)[:200]]
    # The text is what counts, but where an object is.
    return ["renders", type(value).__name__, re.sub(r"0x[0-9a-f]{6,}", "0x", str(value))]


class ContextTrigger(BaseTrigger):
    """Renders each template by itself, as Airflow renders the trigger's arguments."""

    def __init__(self, *, templates, strict):
        super().__init__()
        self.templates = templates
        self.strict = strict
        self.members = []
        self.tasks = {}

    def serialize(self):
        return f"{__name__}.{type(self).__name__}", {"templates": self.templates, "strict": self.strict}

    def render_template_fields(self, context, jinja_env=None):
        environment = jinja_env or self.get_template_env()
        if self.strict:
            environment.undefined = StrictUndefined

        async def render(template):
            # Airflow's own calls suspend the trigger by this.
            await greenback.ensure_portal()
            return _outcome(lambda text: self.render_template(text, context, environment), template)

        self.members = sorted(context)
        self.tasks = {template: asyncio.create_task(render(template)) for template in self.templates}

    async def run(self):
        # Airflow answers in the order in which it is asked, so what is still waiting when later questions have been
        # answered was not answered at all.
        for _ in range(FENCES):
            await task_runner.SUPERVISOR_COMMS.asend(GetVariable(key="no_such_variable"))
            await asyncio.sleep(0.1)
        outcomes = {}
        for template, task in self.tasks.items():
            outcomes[template] = task.result() if task.done() else [HANGS, "", ""]
            task.cancel()
        yield TriggerEvent({"members": self.members, "outcomes": outcomes})


class ContextProbe(BaseOperator):
    """Goes through the triggerer first and then through a worker, so that both render for one task instance."""

    template_fields = ("templates",)

    def __init__(self, *, templates, strict=False, **kwargs):
        super().__init__(**kwargs)
        self.templates = templates
        self.members = []
        self.outcomes = {}
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{ContextTrigger.__module__}.{ContextTrigger.__name__}",
            trigger_kwargs={"templates": templates, "strict": strict},
            next_method="compare",
        )

    def render_template_fields(self, context, jinja_env=None):
        environment = jinja_env or self.get_template_env()
        self.members = sorted(context)
        self.outcomes = {
            template: _outcome(lambda text: self.render_template(text, context, environment), template)
            for template in self.templates
        }

    def execute(self, context):  # noqa: ARG002  # Airflow's signature
        raise RuntimeError("The scheduler did not start it in the triggerer")

    def compare(self, context, event):  # noqa: ARG002  # likewise
        return {
            "members": {"worker": self.members, "triggerer": event["members"]},
            "outcomes": {
                template: {"worker": outcome, "triggerer": event["outcomes"][template]}
                for template, outcome in self.outcomes.items()
            },
        }
