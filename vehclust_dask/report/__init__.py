"""What a person looks at: contact sheets, curves and maps of a finished run, drawn without Dask."""
