"""Lets onnx check each model of the folder of the first argument, and onnxruntime compute it: of NAME.onnx
and NAME_x.npy comes NAME_y.npy."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    of_file = session.get_modelmeta()
    assert of_file.producer_name == "gemmprop", of_file.producer_name
    (x,), (y,) = session.get_inputs(), session.get_outputs()
    assert (x.name, y.name, x.shape[0], y.shape[0]) == ("x", "y", "batch", "batch"), (x, y)
    classes = of_file.custom_metadata_map.get("classes")
    if classes is not None:
        assert len(json.loads(classes)) == max(y.shape[1], 2), classes
    inputs = np.load(path.with_name(f"{path.stem}_x.npy"))
    (outputs,) = session.run(["y"], {"x": inputs})
    assert outputs.dtype == inputs.dtype and outputs.shape == (len(inputs), y.shape[1])
    # The batch may have any length.
    assert session.run(["y"], {"x": inputs[:1]})[0].shape == (1, y.shape[1])
    np.save(path.with_name(f"{path.stem}_y.npy"), outputs)
