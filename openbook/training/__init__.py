"""Training: the only package with gradients, and the only one that may import torch.

A run reads a recipe and data and writes a new, immutable model into the store. Nothing that answers questions may import
this package; import contracts and a test in a fresh process check that.

* `run`               a whole run; start reading here
* `recipe`            one TOML file that determines a run
* `datasets`          data files; documents and conversations as trees
* `reader_objective`  passages with questions as trees; hard negatives
* `trees`             training examples that share passages; the order and size of steps
* `network`           a stored or new model as a network with gradients; the loss
* `attention`         attention over trees
* `loop`              the training steps
* `evaluation`        the dev data
* `checkpoints`       stop and continue
* `distributed`       one run on several processes
* `export`            files for the model store and for other programs
* `report`            a run as one page
"""
