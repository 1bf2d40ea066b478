"""jaxcl on a machine that lacks the packages which only some runs need."""

import subprocess
import sys

ABSENT = ("tyro", "tensorflow_datasets", "grain", "array_record", "tensorboardX", "wandb")

PROGRAM = f"""
import sys
for name in {ABSENT}:
    sys.modules[name] = None  # as if it were not installed
sys.path[:0] = {[path for path in sys.path if path]}

import importlib, pkgutil
import conftest, jaxcl, tiny
for module in pkgutil.walk_packages(jaxcl.__path__, "jaxcl."):
    importlib.import_module(module.name)
from jaxcl.data import TFDS
from jaxcl.programs.train import main

folder = sys.argv[1]
assert jaxcl.fit(tiny.with_("optim", epochs=1, warmup_epochs=0), folder + "/run").finished
assert jaxcl.load(folder + "/run").classes

def told(run):
    try:
        run()
    except jaxcl.UserError as error:
        print(error)

told(lambda: jaxcl.fit(tiny.with_("train", tensorboard=True), folder + "/other"))
told(lambda: jaxcl.fit(tiny.with_("data", road="streamed"), folder + "/other"))
told(lambda: TFDS("mnist").split("train"))
main(["configs/simclr_digits.py"])
"""


def test_packages_are_missed_only_where_they_are_used(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    tensorboard, streamed, tfds, tyro = (*done.stdout.splitlines(), done.stderr.splitlines()[-1])
    assert tensorboard.startswith("train.tensorboard=True needs tensorboardX, which is not inst")
    assert streamed.startswith("data.road=streamed needs grain, which is not installed")
    assert tfds.startswith("data.source=tfds:mnist needs tensorflow_datasets, which is not")
    assert tyro.startswith("error: the command line of train.py configs/simclr_digits.py n")
    assert done.returncode == 2
    assert not (tmp_path / "other").exists()
