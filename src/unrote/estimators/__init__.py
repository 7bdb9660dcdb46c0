"""The scikit-learn face: classifiers for numpy, pandas, torch and sparse input, for pipelines and searches.

from unrote import MATClassifier
classifier = MATClassifier(random_state=0).fit(X, y)
print(classifier.report())
"""

from unrote.estimators.base import BaseClassifier, NotTrainedError
from unrote.estimators.erm import ERMClassifier
from unrote.estimators.general import UnroteClassifier
from unrote.estimators.mat import MATClassifier
from unrote.estimators.report import EvaluationReport, TrainingReport

__all__ = [
    "BaseClassifier",
    "ERMClassifier",
    "EvaluationReport",
    "MATClassifier",
    "NotTrainedError",
    "TrainingReport",
    "UnroteClassifier",
]
