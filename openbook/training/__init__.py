"""Training: the only place with gradients, and the only place that may import torch.

Training reads a recipe and data and ends by writing a new, immutable model into the model store. Nothing that answers
questions may import this package; the import contracts and a test in a fresh process see to it.

* `recipe`       one TOML file that determines a run
* `jsonl`        data files, checked against the recipe's digests
* `reader`       passages with questions as examples; hard negatives
* `instruction`  conversations as examples
* `language`     plain documents as examples
* `scratch`      a model from nothing: its vocabulary and its first numbers
* `examples`     trees: a passage read once with all its questions; order and size of steps
* `batches`      trees as tensors
* `network`      a stored model's numbers as a network with gradients
* `trainable`    what is learned: LoRA or all
* `objective`    the loss, and what a pass tells of greedy answers
* `loop`         one step after the other
* `evaluating`   the dev data
* `sampling`     a few answers to look at
* `checkpoints`  stopping and going on
* `processes`    several processes on one run
* `running`      all of it, from a recipe
* `exporting`    to a GGUF file, which the model store takes in
* `report`       a run as one page
"""
