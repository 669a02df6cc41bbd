from hypothesis import settings

# A slow example on a busy machine is no failure; the time limit of each test stands.
settings.register_profile("wire", deadline=None)
settings.load_profile("wire")
