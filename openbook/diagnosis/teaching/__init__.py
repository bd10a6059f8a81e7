"""What does a fact cost, by training and by retrieval, and what does a skill cost? Measured on a base model of one's own.

    facts, fact_files, names    what is taught: generated facts, or those of a file
    tasks                       small tasks whose facts are all in the passage
    lessons                     what a training run is given
    seams                       who trains, opens models and makes knowledge bases: the only way out of this package
    asking                      the answers, and what they took
    fact_arms, skill_arms       what is compared
    jobs                        the work in parts that are kept, so that a run can be stopped and goes on
    findings, plot, page        what it says

Nothing here trains. A `Trainer` starts the training in a process of its own and hands back the digest of a stored model.
"""
