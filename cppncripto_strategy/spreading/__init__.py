"""Work spread over processes of this machine, or over other machines with Dask or Ray."""
