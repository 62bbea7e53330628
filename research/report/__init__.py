"""Tables, figures and the HTML report: everything a person reads, drawn from one `result.json`."""
