"""Diagnosis: closed-book, open-book and oracle answers side by side.

* `runner`           asks every question three ways, and the probes; start reading here
* `bench`            the setup that is diagnosed, and one request to it
* `run_log`          the file of what was answered
* `verdicts`         from what was answered to one verdict for each question
* `scoring`          which answer is right; intervals and tests
* `gold_passages`    which passages hold the answer
* `questions`        the file of questions
* `importers`        files of questions: OpenBook's own, SQuAD's and RAGAS's
* `question_drafts`  questions that a model proposes, and a person's decisions about them
* `probes`           the passage altered, withheld, or put among others
* `perturb`          other values of the same kind, and passages altered by them
* `llm_judge`        a second opinion by another model
* `summary`          shares of verdicts; two diagnoses on the same questions
* `advice`           what to do about the misses
* `report`           one HTML page
* `results`          the folder of a diagnosis
* `gate`             whether a trained model may replace the one that a name points to, and the questions that decide it
"""
