"""FastAPI as in tutorials: a pydantic body, `session.run`, a dict; from a `def` and from an `async def`."""

import numpy as np
from fastapi import FastAPI
from network import Network
from pydantic import BaseModel

network = Network()
app = FastAPI()


class Question(BaseModel):
    window: list[float]


class LongQuestion(Question):
    horizon: int


def answer(question):
    window = np.array(question.window, dtype=np.float32).reshape(1, -1, 1)
    return {"forecast": float(network.next_step(window)[0, 0])}


def long_answer(question):
    window = np.array(question.window, dtype=np.float32).reshape(1, -1, 1)
    return {"forecast": network.slide(window, question.horizon)[0].tolist()}


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/def/forecast")
def forecast(question: Question):
    return answer(question)


@app.post("/def/multi-step")
def multi_step(question: LongQuestion):
    return long_answer(question)


@app.post("/async/forecast")
async def forecast_async(question: Question):
    return answer(question)


@app.post("/async/multi-step")
async def multi_step_async(question: LongQuestion):
    return long_answer(question)
