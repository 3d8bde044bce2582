"""From events to rows with exact averages."""
