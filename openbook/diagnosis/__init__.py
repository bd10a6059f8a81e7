"""Diagnosis: closed-book, open-book and oracle answers side by side.

* `runner`           asks every question three ways; start reading here
* `run_log`          the file of what was answered
* `verdicts`         from what was answered to one verdict for each question
* `scoring`          which answer is right; intervals and tests
* `gold_passages`    which passages hold the answer
* `questions`        the file of questions, and the review of drafts in it
* `question_drafts`  questions that a model proposes
* `probes`           the passage altered, or withheld
* `perturb`          other values of the same kind, and passages altered by them
* `summary`          shares of verdicts; two diagnoses on the same questions
* `advice`           what to do about the misses
* `report`           the folder of a diagnosis: one HTML page, and the numbers as JSON
* `gate`             whether a trained model may replace the one that a name points to, and the questions that decide it
"""
