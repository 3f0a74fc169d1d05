"""The workshop of the notebooks. It may import `studyguide`, which never imports it."""
