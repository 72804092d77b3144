"""What widgets and viewers share: docks, dialogs, forms, the canvas."""
