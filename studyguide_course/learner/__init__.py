"""What surrounds the lessons: a learner's progress, errors in two lines, and a teacher's grades."""
