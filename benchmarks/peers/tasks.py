"""The same task for every queue, by the name that each of them asks for.

`REDIS_URL` tells the workers their server. `work` is done by all: it returns what it was given
(a no-op, or a payload there and back) or blurs a tile.
"""

import os
import pickle
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import numpy as np

URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
WINDOW = (276, 276, 4)


def work(kind: str, body: bytes) -> bytes:
    if kind != "blur":
        return body
    from studyguide.blur import blur_window
    from studyguide.settings import Blur

    window = np.frombuffer(body, np.uint8).reshape(WINDOW)
    return blur_window(window, Blur.of(21, method="separable")).tobytes()


def celery_app() -> Any:
    from celery import Celery

    app = Celery("peer", broker=URL, backend=URL)
    app.conf.update(
        task_serializer="pickle",
        result_serializer="pickle",
        accept_content=["pickle"],
        task_acks_late=True,
        worker_prefetch_multiplier=16,
        broker_connection_retry_on_startup=True,
    )
    app.task(work, name="work")
    return app


def dramatiq_actor() -> Any:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.encoder import PickleEncoder
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    dramatiq.set_encoder(PickleEncoder())
    broker = RedisBroker(url=URL)
    broker.add_middleware(Results(backend=RedisBackend(url=URL)))
    dramatiq.set_broker(broker)
    return dramatiq.actor(work, actor_name="work", store_results=True)


def huey_task() -> Any:
    from huey import RedisHuey

    return RedisHuey("peer", url=URL).task()(work)


def taskiq_task() -> Any:
    from taskiq.serializers import PickleSerializer
    from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

    backend = RedisAsyncResultBackend(redis_url=URL, serializer=PickleSerializer())
    broker = RedisStreamBroker(url=URL).with_result_backend(backend)
    broker = broker.with_serializer(PickleSerializer())
    return broker.register_task(taskiq_work, task_name="work")


def taskiq_work(kind: str, text: str) -> str:
    """As text, for taskiq makes JSON values of arguments and results before it serialises them.

    A function of its own, too: taskiq renames what it registers, and others send it by its name.
    """
    return b64encode(work(kind, b64decode(text))).decode()


async def arq_work(_: Any, kind: str, body: bytes) -> bytes:
    return work(kind, body)


class WorkerSettings:
    """Of arq."""

    functions = (arq_work,)
    job_serializer = pickle.dumps
    job_deserializer = pickle.loads
    max_jobs = 16
    poll_delay = 0.01

    @staticmethod
    def redis() -> Any:
        from arq.connections import RedisSettings

        return RedisSettings.from_dsn(URL)


# What the commands of the peers look for in this module, made for the one that asks.
MAKERS: dict[str, Callable[[], Any]] = {
    "celery": celery_app,
    "dramatiq": dramatiq_actor,
    "huey": huey_task,
    "taskiq": taskiq_task,
}
PEER = os.environ.get("PEER", "")
if PEER in MAKERS:
    made = MAKERS[PEER]()
    app = made if PEER == "celery" else None
    huey = made.huey if PEER == "huey" else None
    broker = made.broker if PEER in ("dramatiq", "taskiq") else None
if PEER == "arq":
    WorkerSettings.redis_settings = WorkerSettings.redis()  # type: ignore[attr-defined]
