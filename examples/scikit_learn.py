"""MAT as a scikit-learn classifier: real handwritten digits whose background gives the answer away in training.

In training the background agrees with the label 19 times in 20, in the test one time in two. Neither classifier
sees which background an example has. Takes about ten seconds.

    python examples/scikit_learn.py
"""

import unrote

task = unrote.load_task("digits")
X, y = task.train.x.tensor.flatten(1), task.train.y
X_test, y_test, background = task.test.x.tensor.flatten(1), task.test.y, task.test.attribute

plain = unrote.ERMClassifier(random_state=0).fit(X, y).report(X_test, y_test, groups=background)
classifier = unrote.MATClassifier(random_state=0).fit(X, y)
mat = classifier.report(X_test, y_test, groups=background)

print(plain, mat, classifier.report(), sep="\n\n")
assert mat.figures.worst_group.accuracy > plain.figures.worst_group.accuracy + 0.2
