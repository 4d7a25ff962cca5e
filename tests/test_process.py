from boxless.process import ProcessSetting


def test_the_last_block_restores_what_was_before_the_first():
    values = [8]
    setting = ProcessSetting(lambda: values[-1], values.append)
    first, second = setting.changed_to(1), setting.changed_to(1)
    assert first.__enter__() == 8 and second.__enter__() == 8
    # Threads leave in any order.
    first.__exit__(None, None, None)
    assert values[-1] == 1
    second.__exit__(None, None, None)
    assert values[-1] == 8
