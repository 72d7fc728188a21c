"""How the rows that a sensor's success leaves in Airflow's database differ from those of poke mode, and why."""

from __future__ import annotations

from typing import NamedTuple

KINDS = {
    "plain": "an ordinary task",
    "again": "the same, cleared and run a second time",
    "mapped": "a mapped task",
    "counted": "a task over whose result another one is mapped",
    "result": "a task whose result is the DAG's",
    "named": "a task with map_index_template that is not mapped",
}
STANDS_FOR = {
    "mapped": {"start": "deferrable", "both": "end"},
    "counted": {"end": "deferrable", "both": "start"},
    "result": {"end": "deferrable", "both": "start"},
    "named": {"both": "end"},
    "again": {"both": "both again"},
}
"""Which modes leave what another one does, in a kind of task: where a worker starts or ends it after all."""
# A second try that started in the triggerer is ended by a worker, but the audit log has the first one's rows, too.
AGAIN = "both again"
DEFERS, ENDS = ("deferrable", "start", "end", "both", AGAIN), ("end", "both")


class Difference(NamedTuple):
    """What is not as in poke mode: a column, or a row that is missing or there besides."""

    where: str
    modes: tuple[str, ...]
    why: str
    kinds: tuple[str, ...] = tuple(KINDS)


NO_WORKER = "no worker ran, so there is nothing to report"
DIFFERENCES = (
    Difference(
        "task_instance.trigger_timeout", DEFERS, "Airflow leaves it, and looks at it while the task is deferred"
    ),
    Difference("log[deferred]: besides", ("deferrable", "end"), "the audit log has a worker's deferral"),
    Difference("log[running]: besides", ("deferrable",), "a second worker resumes the task"),
    Difference("log[running]: missing", ("both", AGAIN), NO_WORKER),
    Difference("log[success]: missing", (*ENDS, AGAIN), "the audit log has only what workers report"),
    Difference("task_instance.next_method", ENDS, "Airflow leaves it, and removes it when the task is cleared"),
    Difference("task_instance.next_kwargs", ENDS, "likewise"),
    Difference("task_instance.hostname", ("both",), NO_WORKER),
    Difference("task_instance.pid", ("both",), NO_WORKER),
    Difference("task_instance.unixname", ("both",), "the name of the process that made the row"),
    Difference("task_instance.queued_dttm", ("both",), "it was in no executor's queue"),
    Difference("task_instance.queued_by_job_id", ("both",), "likewise"),
    Difference("task_instance.scheduled_dttm", ("both",), "likewise"),
    Difference("task_instance.last_heartbeat_at", ("both",), NO_WORKER),
    Difference("rendered_task_instance_fields: missing", ("both",), "only tasks without templates end so"),
    Difference("xcom[sagemaker_image]: missing", ("both",), "the link that is made of it is there"),
    Difference("xcom[_link_SageMakerImageLink].value", ENDS, "encoded twice, as Airflow decodes links twice"),
)
