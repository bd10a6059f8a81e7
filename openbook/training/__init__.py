"""Training: the only package with gradients, and the only one that may import torch.

A run reads a recipe and data and writes a new, immutable model into the store. Nothing that answers questions may import
this package; import contracts and a test in a fresh process check that.

* `run`               a whole run; start reading here
* `recipe`            one TOML file that determines a run
* `datasets`          data files; documents and conversations as trees
* `reader_objective`  passages with questions as trees; hard negatives
* `trees`             examples that share passages; steps
* `network`           a model with gradients; the loss
* `attention`         attention over trees
* `loop`              the training steps
* `evaluation`        the dev data
* `checkpoints`       stop and continue
* `distributed`       one run on several processes
* `export`            model files
* `report`            a run as one page
"""
