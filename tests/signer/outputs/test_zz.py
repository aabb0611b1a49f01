def test_log(rig):
    print(rig.log.read_text()); assert 0
