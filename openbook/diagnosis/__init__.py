"""Diagnosis: closed-book, open-book and oracle answers to the same questions.

* `runner`           asks every question three ways; start reading here
* `run_log`          the file of answers
* `verdicts`         one verdict for each question
* `scoring`          which answer is right; intervals and tests
* `gold_passages`    the passages that hold the answer
* `questions`        the file of questions, and the review of drafts
* `question_drafts`  questions that a model proposes
* `perturb`          other values of the same kind, and passages altered by them
* `calibration`      certainty against right answers, and limits that hold
* `summary`          shares of verdicts; two diagnoses compared
* `advice`           what to do about the misses
* `report`           one HTML page, and the numbers as JSON
* `gate`             the test that a trained model must pass to replace another
"""
