"""What turns feedback into an adapter: views, trainers, evaluation, gate, registry, runs."""
