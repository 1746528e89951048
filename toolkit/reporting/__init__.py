"""One page that shows whether a bundle can be deployed: plain values in, HTML and Markdown out."""
