"""Run by every kernel that `make lab` starts, before its first cell; see PYTHONSTARTUP."""

__import__("studyguide_course.learner.kernel").learner.kernel.install()
