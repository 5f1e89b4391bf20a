"""The baseline of `serve.py`: a FastAPI server that calls the signature of a SavedModel inline.

`python benchmarks/serve_fastapi.py VERSION_FOLDER PORT`
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys

import fastapi
import numpy as np
import tensorflow as tf
import uvicorn
from fastapi.responses import JSONResponse

app = fastapi.FastAPI()


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {}


@app.post("/v1/models/digits:predict")
async def predict(request: fastapi.Request) -> JSONResponse:
    body = await request.json()
    rows = tf.constant(np.asarray(body["instances"], "float32"))
    (values,) = signature(**{name: rows}).values()
    return JSONResponse({"predictions": values.numpy().tolist()})


if __name__ == "__main__":
    folder, port = sys.argv[1:]
    signature = tf.saved_model.load(folder).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    signature(**{name: tf.zeros((1, 64))})
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
